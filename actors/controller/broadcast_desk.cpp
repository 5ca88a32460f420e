#include "actors/controller/broadcast_desk.h"

#include <utility>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/text.h"

namespace praetor {

namespace {

/// How long members that have not said how the last broadcast went are waited for before the next.
constexpr std::chrono::milliseconds kWord{2000};

}  // namespace

BroadcastDesk::BroadcastDesk(int64_t epoch, std::function<void(int64_t)> keep)
    : keep_(std::move(keep)), membership_(epoch) {}

OpenedBroadcast BroadcastDesk::open_broadcast(const OpenBroadcast& request) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kWord, [&] { return over_ || membership_.owing().empty(); });
  const int64_t before = membership_.now().epoch;
  const std::string why = membership_.over();
  OpenedBroadcast out = membership_.open(request);
  if (out.number.epoch > before) {
    if (keep_) keep_(out.number.epoch);
    log::info(str("weights: epoch ",
                  out.number.epoch,
                  " of broadcasts: ",
                  join(out.members, ", "),
                  why.empty() ? "" : " (" + why + ")"));
  }
  changed_.notify_all();
  return out;
}

void BroadcastDesk::start_broadcast(const BroadcastCall& call) {
  const std::lock_guard lock(mutex_);
  membership_.start(call.number);
  call_ = call;
  call_.members = membership_.members();
  changed_.notify_all();
}

std::optional<std::string> BroadcastDesk::watch_broadcast(const BroadcastNumber& number,
                                                          std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  const bool seen = changed_.wait_for(lock, wait, [&] {
    return over_ || !membership_.running(number) || !membership_.lost().empty();
  });
  if (!seen) return std::nullopt;
  if (over_) return "the run is over";
  if (!membership_.running(number)) return "the controller does not know of it any more";
  return membership_.lost();
}

void BroadcastDesk::close_broadcast(const BroadcastNumber& number, const std::string& failure) {
  const std::lock_guard lock(mutex_);
  membership_.close(number, failure);
  changed_.notify_all();
}

std::optional<BroadcastCall> BroadcastDesk::await_broadcast(const AwaitBroadcast& request) {
  std::unique_lock lock(mutex_);
  membership_.present(request.worker, request.seen, request.outcome, request.why);
  changed_.notify_all();
  const auto called = [&] {
    return membership_.called(request.worker) && membership_.now() > request.seen;
  };
  // One that failed before its member heard of it is over: who asks again says that it is there.
  const bool owed = membership_.owing().contains(request.worker);
  changed_.wait_for(lock, request.wait, [&] {
    return over_ || called() || (!owed && membership_.owing().contains(request.worker));
  });
  if (over_ || !called()) return std::nullopt;
  BroadcastCall out = call_;
  out.rank = membership_.rank_of(request.worker);
  return out;
}

void BroadcastDesk::gone(const std::string& member, const std::string& why) {
  const std::lock_guard lock(mutex_);
  membership_.gone(member, why);
  changed_.notify_all();
}

void BroadcastDesk::end() {
  const std::lock_guard lock(mutex_);
  over_ = true;
  changed_.notify_all();
}

BroadcastStatus BroadcastDesk::status() const {
  const std::lock_guard lock(mutex_);
  BroadcastStatus out{.epoch = membership_.now().epoch,
                      .number = membership_.now().number,
                      .change = membership_.over()};
  if (out.epoch > 0) out.members = membership_.members();
  out.waiting.assign(membership_.present().begin(), membership_.present().end());
  return out;
}

}  // namespace praetor
