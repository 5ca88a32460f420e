#pragma once

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <string>

namespace praetor::rpc {

/// How often each caller may call: `burst` times at once, and `per_second` times in each second
/// after. Any thread.
class CallRate {
 public:
  using Clock = std::chrono::steady_clock;

  CallRate(int per_second, int burst) : per_second_(per_second), burst_(burst) {}

  /// False: too soon, and the call does not count.
  bool take(const std::string& caller, Clock::time_point now) {
    const std::lock_guard lock(mutex_);
    if (callers_.size() >= kMostCallers) forget_idle(now);
    Bucket& bucket = callers_.try_emplace(caller, Bucket{burst_, now}).first->second;
    bucket = filled(bucket, now);
    if (bucket.calls < 1) return false;
    bucket.calls -= 1;
    return true;
  }

 private:
  static constexpr size_t kMostCallers = 16384;
  struct Bucket {
    double calls = 0;  ///< that may be made now
    Clock::time_point at;
  };

  Bucket filled(const Bucket& bucket, Clock::time_point now) const {
    const double seconds = std::chrono::duration<double>(now - bucket.at).count();
    return {std::min(burst_, bucket.calls + seconds * per_second_), now};
  }
  /// Whoever may call as often as a new one need not be remembered.
  void forget_idle(Clock::time_point now) {
    std::erase_if(callers_,
                  [&](const auto& one) { return filled(one.second, now).calls >= burst_; });
  }

  const double per_second_, burst_;
  std::mutex mutex_;
  std::map<std::string, Bucket> callers_;
};

}  // namespace praetor::rpc
