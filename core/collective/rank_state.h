#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>

namespace praetor {

struct CollectiveCall;

/// What all groups of one rank have in common: once one has failed, or the rank has given up, none
/// of them is used any more. Calls from any thread.
class RankState {
 public:
  /// The rank has called abort.
  void give_up(const std::string& reason);
  bool gives_up() const { return gives_up_; }
  std::string reason() const;

  /// The first failure counts.
  void fail(const std::string& why);
  bool failed() const { return failed_; }
  std::string failure() const;
  /// @return whether the others have not been told yet that this rank fails; they are now
  bool tell() { return !told_.exchange(true); }

  /// The last few calls, for errors where debugging is on.
  void record(std::string call);
  std::string last_calls() const;

  /// The largest id of a group so far; by the rank's own thread alone.
  int64_t last_id = 0;
  /// ExchangeCollective::set_probe
  std::function<void(const CollectiveCall& call)> probe;

 private:
  mutable std::mutex mutex_;
  std::atomic<bool> gives_up_{false}, failed_{false}, told_{false};
  std::string reason_, failure_;
  std::deque<std::string> calls_;
};

}  // namespace praetor
