#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "core/model/generator.h"
#include "rollout/engine.h"
#include "rollout/scheduler.h"
#include "rollout/step_logits.h"
#include "rollout/voices.h"

namespace praetor {

/// What a request's owner hears. Called by the thread that steps; may submit and cancel.
struct Listener {
  /// After each token: the response as it stands (its text comes at the end), and the text that
  /// became certain with the token, maybe empty, never part of a stop string. May be empty itself.
  std::function<void(const Generation& so_far, std::string_view text)> on_token;
  /// As each sample ends; `request` is the id that submit returned.
  std::function<void(Generation&&)> on_finish;
};

/// Requests that come and go while the engine goes on step by step: what Engine::generate does for
/// a list, and a server for its callers. A response is the same, bit for bit, as generate's. Keys
/// and values of what was computed stay in the cache until room is needed, so a conversation's next
/// turn computes its new part alone. One thread. While a session lives its engine does nothing
/// else.
class Session {
 public:
  using Clock = std::chrono::steady_clock;

  /// Takes the whole `cache_bytes` of the engine, for all its models.
  /// @throws InvalidArgument when the engine has a session already
  explicit Session(Engine& engine);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// A request behind all others; returns its id. At `deadline` what is not yet ended is cancelled.
  /// @throws InvalidArgument as Engine::generate does
  int64_t submit(GenerationRequest request,
                 Listener listener,
                 std::optional<Clock::time_point> deadline = std::nullopt);
  /// Before the next step all samples of the request that have not ended do so as kCancelled, with
  /// what they have; an id that has ended, or never was, is nothing.
  void cancel(int64_t request);
  /// One forward pass of every model that its rows need, and a token for each sequence that is
  /// ready. False: nothing is left to do.
  bool step();
  /// The weights were replaced in place. Tokens from now on are drawn from the new ones; with
  /// `recompute` also all keys and values are theirs, without, running responses keep the ones they
  /// have. `version` stands beside each token from now on (Generation::versions).
  void weights_replaced(int64_t version, bool recompute);

  bool is_open(int64_t request) const { return jobs_.contains(request); }
  int64_t open() const { return static_cast<int64_t>(jobs_.size()); }  ///< requests not yet ended
  int64_t used_blocks() const { return scheduler_.blocks().used(); }
  EngineStats stats() const;  ///< since its start

 private:
  friend class Engine;
  struct Job {
    std::shared_ptr<const GenerationRequest> request;
    Listener listener;
    std::optional<Clock::time_point> deadline;
    int32_t open = 0;  ///< samples that have not ended
  };

  /// A sequence whose next token is to be drawn.
  struct Ready {
    Sequence* sequence;
    int64_t row;         ///< of the step's mixed logits
    int64_t drafts = 0;  ///< rows behind it that hold guesses not yet met
  };

  Session(Engine& engine, const ModelSet& used, int64_t blocks, bool keep_responses);
  int64_t submit(std::shared_ptr<const GenerationRequest> request,
                 Listener listener,
                 std::optional<Clock::time_point> deadline);
  std::unique_ptr<Sequence> new_sequence(int64_t id, int32_t sample);
  std::unique_ptr<Sequence> next_sequence();
  void cancel_due();
  void abandon(int64_t id);
  void gather_rows(const Scheduler::Step& step);
  void sample();
  void sample_drafts();
  bool settle(const Ready& ready, const SampledToken& sampled);
  void guess(Sequence& s, int64_t met);
  void add_fork(const Sequence& parent, std::unique_ptr<Sequence> fork, const SampledToken& first);
  bool outgrew_cache(const Sequence& s) const;
  std::unique_ptr<Sequence> restarted(std::unique_ptr<Sequence> s) const;
  bool advance(Sequence& s, const SampledToken& sampled);
  void deliver(int64_t id, Generation&& made);

  Engine& engine_;
  const ModelSet used_;
  const bool keep_responses_;  ///< in the cache, for requests that go on from them
  Scheduler scheduler_;
  StepLogits logits_;
  std::map<int64_t, Job> jobs_;
  std::deque<int64_t> queued_;  ///< not yet begun, oldest first
  std::vector<int64_t> to_cancel_;
  int64_t next_id_ = 0;
  int64_t deadlines_ = 0;  ///< open requests that have one
  int64_t version_ = 0;
  EngineStats stats_;
  Clock::time_point start_ = Clock::now();
  // One step's, kept for their memory.
  std::vector<Ready> ready_;
  std::vector<Ready> met_;         ///< whose guess was drawn
  std::vector<VoicedRow> voiced_;  ///< rows to be mixed
  std::vector<std::unique_ptr<Sequence>> forks_;
  std::vector<SampleRow> draws_;
  std::vector<SampledToken> drawn_;
};

}  // namespace praetor
