#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "actors/controller/broadcasts.h"

namespace praetor {

/// Who takes part in broadcasts of weights: events in, decisions out. Not synchronised.
///
/// A group's members never change. Whatever changes them (somebody came, was lost, did not receive,
/// or has not said so; the publisher is another process) ends the epoch, and the next broadcast has
/// a new one, with a group of its own. An epoch never comes back.
class BroadcastMembership {
 public:
  /// @param epoch  the last that the run has had
  explicit BroadcastMembership(int64_t epoch = 0) : epoch_(epoch) {}

  /// A worker is there, and says how the last broadcast went that it was called to.
  void present(const std::string& worker,
               const BroadcastNumber& seen,
               BroadcastOutcome outcome,
               const std::string& why);
  /// It was lost, or left.
  void gone(const std::string& worker, const std::string& why);

  /// Members that still owe the word how the last broadcast went.
  const std::set<std::string>& owing() const { return owing_; }
  /// Decides on the next broadcast. Repeated without a change in between: the same decision.
  OpenedBroadcast open(const OpenBroadcast& request);
  /// @throws InvalidArgument for a broadcast that is not open, or has lost a member
  void start(const BroadcastNumber& number);
  /// Of another broadcast than the one that goes on: nothing.
  void close(const BroadcastNumber& number, const std::string& failure);

  /// The broadcast that the worker is to take part in now, or has not said of how it went.
  bool called(const std::string& worker) const { return owing_.contains(worker) && !failed_; }
  bool running(const BroadcastNumber& number) const {
    return phase_ == Phase::kRunning && number == now_;
  }
  /// Which member the broadcast has lost since it was opened, and why; empty: none.
  const std::string& lost() const { return lost_; }
  const BroadcastNumber& now() const { return now_; }
  /// By rank; the publisher is the first.
  const std::vector<std::string>& members() const { return members_; }
  /// 0: it is not one of the receivers.
  int32_t rank_of(const std::string& worker) const;
  /// Workers that are there.
  const std::set<std::string>& present() const { return present_; }
  /// Why the epoch is over; empty: it is not.
  const std::string& over() const { return over_; }

 private:
  enum class Phase : uint8_t { kIdle, kOpen, kRunning };
  void end_epoch(const std::string& why);
  void drop(const std::string& worker, const std::string& why);

  int64_t epoch_;
  std::string over_ = "there is none yet";
  std::vector<std::string> members_;
  std::set<std::string> present_, owing_;
  std::map<std::string, std::string> dropped_;  ///< since the epoch began, and why
  std::vector<std::string> dropped_before_;     ///< before it began, and not there
  BroadcastNumber now_;
  Phase phase_ = Phase::kIdle;  ///< of now_
  bool joined_ = false;         ///< the epoch has a group
  bool failed_ = false;         ///< the broadcast before came to nothing
  std::string lost_;
};

}  // namespace praetor
