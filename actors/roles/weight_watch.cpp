#include "actors/roles/weight_watch.h"

#include <utility>

#include "actors/rpc/client.h"
#include "core/base/log.h"

namespace praetor {

namespace {

/// A question that stays open; short, so that the thread notices soon that nobody generates.
constexpr std::chrono::milliseconds kWait{2000};
constexpr std::chrono::milliseconds kAfterFailure{1000};

}  // namespace

WeightWatch::WeightWatch(WorkerService& service) : service_(service) {
  thread_ = std::thread([this] { run(); });
}

WeightWatch::~WeightWatch() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void WeightWatch::watch(const WeightVersion& version) {
  const std::lock_guard lock(mutex_);
  watched_ = version;
  found_.reset();
  changed_.notify_all();
}

void WeightWatch::rest() {
  const std::lock_guard lock(mutex_);
  watched_.reset();
  found_.reset();
}

std::optional<Publication> WeightWatch::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(found_, std::nullopt);
}

void WeightWatch::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ending_ || watched_; });
    if (ending_) return;
    const WeightVersion asked = *watched_;
    lock.unlock();
    std::optional<Publication> answer;
    bool failed = false;
    // A thread body is a border: a controller out of reach is the working thread's to give up on.
    try {
      answer = service_.newer_weights({.stage = asked.stage, .step = asked.step, .wait = kWait});
    } catch (const CancelledError&) {
      return;
    } catch (const Error& failure) {
      log::warn(str("newer weights cannot be asked for: ", failure.what()));
      failed = true;
    }
    lock.lock();
    if (failed) changed_.wait_for(lock, kAfterFailure, [&] { return ending_; });
    // Another lease may have begun meanwhile, with other weights.
    if (!answer || !watched_ || watched_->stage != asked.stage ||
        answer->version.step <= watched_->step)
      continue;
    watched_ = answer->version;
    found_ = std::move(answer);
  }
}

}  // namespace praetor
