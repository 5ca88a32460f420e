#pragma once

#include <chrono>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "actors/controller/services.h"
#include "actors/roles/combiner.h"

namespace praetor {

/// Stands between a controller and some of its workers: passes on what they ask, many calls in one,
/// over one connection. It holds no work and no result: workers stay members under their own names,
/// a completion returns when the controller has made it durable, and a relay that dies is found
/// again, or another one, by workers that try again. Any thread; `above` is borrowed.
class Relay final : public WorkerService {
 public:
  /// @param gather  heartbeats wait so long for others to go with them
  Relay(WorkerService& above, std::chrono::milliseconds gather);

  Admission join(const MemberInfo& member) override;
  Orders heartbeat(const Heartbeat& beat) override;
  void leave(const std::string& name) override;
  std::optional<Lease> lease(const LeaseRequest& request) override;
  void complete(Completion completion) override;
  std::optional<Publication> newer_weights(const NewerWeights& request) override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Asked {
    const LeaseRequest& request;
    Clock::time_point end;
    std::optional<Lease> lease;
  };
  struct Watched {
    const NewerWeights& request;
    Clock::time_point end;
    std::optional<Publication> weights;
  };
  struct Beat {
    const Heartbeat& beat;
    Orders orders = Orders::kGoOn;
  };
  struct Handed {
    Completion completion;
    std::exception_ptr failure;
  };

  std::vector<bool> ask(const std::vector<Asked*>& all);
  std::vector<bool> watch(const std::vector<Watched*>& all);
  std::vector<bool> beat(const std::vector<Beat*>& all);
  std::vector<bool> hand_in(const std::vector<Handed*>& all);

  WorkerService& above_;
  Combiner<Asked> to_generate_, to_score_;
  Combiner<Watched> weights_;
  Combiner<Beat> beats_;
  Combiner<Handed> results_;
};

}  // namespace praetor
