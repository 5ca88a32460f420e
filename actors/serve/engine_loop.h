#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "core/model/generator.h"
#include "rollout/engine.h"
#include "rollout/session.h"

namespace praetor::serve {

/// The call's requests are in the engine.
struct Accepted {};
/// The next token of a response that is streamed.
struct TokenPiece {
  int64_t request = 0;  ///< of the call, from 0
  int32_t sample = 0;
  std::string text;  ///< that became certain with it, maybe empty
  int64_t token = 0;
  float logprob = 0.0F;  ///< nats, untempered
  std::vector<TopLogprob> top;
};
/// A response has ended: a Generation, whose `request` is the call's, from 0.
/// The engine cannot do what was asked.
struct Refused {
  std::string message;
};
/// It went wrong on our side.
struct Failed {
  std::string message;
};
using Event = std::variant<Accepted, TokenPiece, Generation, Refused, Failed>;

/// What one caller has asked and has yet to hear. Any thread may push, one takes.
class Call {
 public:
  /// The next event; none when `wait` has passed.
  std::optional<Event> next(std::chrono::milliseconds wait);
  /// Nobody listens any more: what is left is cancelled at the next step.
  void leave();

 private:
  friend class EngineLoop;
  void push(Event event, bool last = false);

  std::mutex mutex_;
  std::condition_variable pushed_;
  std::deque<Event> events_;
  bool left_ = false;
  std::vector<int64_t> ids_;  ///< of the session; the loop's alone
};

/// One engine, one thread that steps it, and any number of callers. Requests of all callers run
/// in one session, side by side. When a step throws, those in the engine fail, and a new session
/// takes the next ones.
class EngineLoop {
 public:
  struct Stats {
    int64_t running = 0;   ///< requests in the engine
    int64_t queued = 0;    ///< calls not yet looked at
    int64_t failures = 0;  ///< steps that threw
    bool lost = false;     ///< the GPU failed, which it does from then on: restart the server
    EngineStats engine;    ///< since the start
  };

  /// @param most_open  requests in the engine and before it; beyond, submit refuses
  EngineLoop(Engine& engine, int64_t most_open);
  ~EngineLoop();
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  /// Null when too many requests are open, or the loop is stopping. The first event is Accepted or
  /// Refused; then come one Generation for each sample of each request, or Failed.
  std::shared_ptr<Call> submit(std::vector<GenerationRequest> requests,
                               bool streamed,
                               std::optional<Session::Clock::time_point> deadline);
  /// What is open is cancelled, and the thread ends.
  void stop();
  Stats stats() const;

 private:
  struct Order {
    std::shared_ptr<Call> call;
    std::vector<GenerationRequest> requests;
    bool streamed = false;
    std::optional<Session::Clock::time_point> deadline;
  };

  void run();
  bool take_orders(Session& session);
  void begin(Session& session, Order order);
  void cancel_left(Session& session);
  void note(const Session& session);
  void fail_all(const std::string& message);

  Engine& engine_;
  const int64_t most_open_;
  mutable std::mutex mutex_;
  std::condition_variable ordered_;
  std::deque<Order> orders_;
  bool stopping_ = false;
  Stats stats_;
  EngineStats before_;                        ///< of sessions that ended
  int64_t open_ = 0;                          ///< requests of all calls that have not ended
  std::vector<std::shared_ptr<Call>> calls_;  ///< in the engine; the loop's alone
  std::thread thread_;
};

}  // namespace praetor::serve
