#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>

#include "actors/controller/broadcast_membership.h"
#include "actors/controller/broadcasts.h"

namespace praetor {

/// The controller's part of broadcasts of weights: keeps who takes part, and has whoever asks wait.
/// Any thread.
class BroadcastDesk final : public BroadcastService {
 public:
  /// @param epoch  the last that the run has had
  /// @param keep   is told of each new one before anybody acts on it; may be empty
  explicit BroadcastDesk(int64_t epoch = 0, std::function<void(int64_t)> keep = nullptr);

  OpenedBroadcast open_broadcast(const OpenBroadcast& request) override;
  void start_broadcast(const BroadcastCall& call) override;
  std::optional<std::string> watch_broadcast(const BroadcastNumber& number,
                                             std::chrono::milliseconds wait) override;
  void close_broadcast(const BroadcastNumber& number, const std::string& failure) override;
  std::optional<BroadcastCall> await_broadcast(const AwaitBroadcast& request) override;

  /// A member of the run was lost, or left.
  void gone(const std::string& member, const std::string& why);
  /// The run is over: nobody waits any more.
  void end();
  BroadcastStatus status() const;

 private:
  const std::function<void(int64_t)> keep_;
  mutable std::mutex mutex_;  ///< all below
  std::condition_variable changed_;
  BroadcastMembership membership_;
  BroadcastCall call_;  ///< the last
  bool over_ = false;
};

}  // namespace praetor
