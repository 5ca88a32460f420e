#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/collective/roll_call.h"
#include "core/collective/side_channel.h"

namespace praetor {

struct CollectiveCall;

/// What all groups of one rank have in common: once one has failed, or the rank has given up, none
/// of them is used any more. Calls from any thread.
class RankState {
 public:
  /// @param rank, world_size  of the whole
  /// @param channel           to the other ranks; null: there are none
  /// @param debug             calls are kept for errors; so they are where the environment says it
  RankState(int32_t rank, int32_t world_size, std::shared_ptr<SideChannel> channel, bool debug);

  /// The rank has called abort.
  void give_up(const std::string& reason);
  bool gives_up() const { return gives_up_; }
  std::string reason() const;

  /// The first failure, of which the other ranks are told, or one more.
  void fail(const std::string& why);
  bool failed() const { return failed_; }
  std::string failure() const;
  /// Why a wait of any group is to end: "this rank gave up: ..."; empty: it goes on.
  std::string ended() const;
  /// Another rank that gave up, with its reason; what has been taken once may not come again.
  std::optional<SideChannel::Word> another_gave_up();

  RollCall& roll_call() { return roll_call_; }
  /// The other ranks of the whole.
  std::vector<int32_t> others() const;

  void keep_calls() { debug_ = true; }
  bool debug() const { return debug_; }
  /// One of the last few calls, for errors where debugging is on.
  void record(std::string call);
  /// "; the last calls of rank 2: barrier #0, barrier #1" where it is, else nothing.
  std::string last_calls() const;

  /// The largest id of a group so far; by the rank's own thread alone.
  int64_t last_id = 0;
  /// For tests that fail, stop or slow a rank: called before each exchange with others, in all
  /// groups, by the thread that makes it; what it throws the exchange throws. Set before the first.
  std::function<void(const CollectiveCall& call)> probe;

 private:
  const int32_t rank_, world_size_;
  const std::shared_ptr<SideChannel> channel_;
  std::atomic<bool> debug_;
  RollCall roll_call_;
  mutable std::mutex mutex_;
  std::atomic<bool> gives_up_{false}, failed_{false};
  std::string reason_, failure_;
  std::deque<std::string> calls_;
};

}  // namespace praetor
