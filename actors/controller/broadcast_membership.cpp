#include "actors/controller/broadcast_membership.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"

namespace praetor {

void BroadcastMembership::end_epoch(const std::string& why) {
  if (over_.empty()) over_ = why;
}

void BroadcastMembership::drop(const std::string& worker, const std::string& why) {
  owing_.erase(worker);
  if (rank_of(worker) == 0) return;
  dropped_.try_emplace(worker, why);
  end_epoch(worker + ": " + why);
}

int32_t BroadcastMembership::rank_of(const std::string& worker) const {
  const auto found = std::ranges::find(members_, worker);
  return found == members_.end() ? 0 : static_cast<int32_t>(found - members_.begin());
}

void BroadcastMembership::present(const std::string& worker,
                                  const BroadcastNumber& seen,
                                  BroadcastOutcome outcome,
                                  const std::string& why) {
  if (owing_.contains(worker)) {
    if (seen == now_ && outcome != BroadcastOutcome::kNone) {
      if (outcome == BroadcastOutcome::kFailed) drop(worker, why);
      owing_.erase(worker);
    } else if (failed_) {
      owing_.erase(worker);  // it was over before the worker heard of it
    }
  }
  if (present_.insert(worker).second && rank_of(worker) == 0) end_epoch(worker + " has come");
}

void BroadcastMembership::gone(const std::string& worker, const std::string& why) {
  present_.erase(worker);
  if (rank_of(worker) > 0 && lost_.empty()) lost_ = worker + ": " + why;
  drop(worker, why);
}

OpenedBroadcast BroadcastMembership::open(const OpenBroadcast& request) {
  PRAETOR_CHECK(!request.publisher.empty(), "a publisher without a name");
  if (phase_ == Phase::kRunning) close(now_, "its publisher has gone");
  for (const std::string& worker : std::set<std::string>(owing_)) {
    // Not counted on until it asks again.
    present_.erase(worker);
    drop(worker, "it has not said how the last broadcast went");
  }
  if (members_.empty() || members_.front() != request.publisher) {
    end_epoch(request.publisher + " publishes");
  } else if (joined_ && request.held != epoch_) {
    end_epoch(request.publisher + " is not in the group any more");
  }
  if (!over_.empty()) {
    // The publisher may know of epochs that this controller does not.
    epoch_ = std::max(epoch_, request.held);
    members_ = {request.publisher};
    members_.insert(members_.end(), present_.begin(), present_.end());
    dropped_before_.clear();
    for (const auto& [worker, why] : std::exchange(dropped_, {})) {
      if (!present_.contains(worker)) dropped_before_.push_back(worker + ": " + why);
    }
    phase_ = Phase::kIdle;
    joined_ = false;
    if (present_.empty()) {
      over_ = "no worker is there";
      return {.dropped = dropped_before_};
    }
    over_.clear();
    now_ = {++epoch_, 0};
  }
  if (phase_ != Phase::kOpen) {
    phase_ = Phase::kOpen;
    ++now_.number;
    failed_ = false;
    lost_.clear();
  }
  return {.number = now_,
          .members = members_,
          .join = !joined_,
          .dropped = joined_ ? std::vector<std::string>() : dropped_before_};
}

void BroadcastMembership::start(const BroadcastNumber& number) {
  if (running(number)) return;
  // Who came since it was opened is in the next epoch.
  if (phase_ != Phase::kOpen || number != now_ || !lost_.empty()) {
    throw InvalidArgument("broadcast ",
                          number.number,
                          " of epoch ",
                          number.epoch,
                          lost_.empty() ? " is not open" : " cannot begin: " + lost_);
  }
  phase_ = Phase::kRunning;
  joined_ = true;
  owing_.insert(members_.begin() + 1, members_.end());
}

void BroadcastMembership::close(const BroadcastNumber& number, const std::string& failure) {
  if (number != now_ || phase_ == Phase::kIdle) return;
  phase_ = Phase::kIdle;
  failed_ = !failure.empty();
  if (failed_) end_epoch("the last broadcast failed: " + failure);
}

}  // namespace praetor
