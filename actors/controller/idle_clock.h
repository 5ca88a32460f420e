#pragma once

#include <chrono>
#include <map>
#include <string>
#include <utility>

#include "core/ledger/records.h"

namespace praetor {

/// How long workers have waited for work of a kind. Not synchronised: whoever waits on a condition
/// holds its lock before and after.
class IdleClock {
 public:
  using Clock = std::chrono::steady_clock;

  /// A worker waits while it lives.
  class Waiting {
   public:
    Waiting(IdleClock& clock, LeaseKind kind, const std::string& worker)
        : clock_(clock), kind_(kind), worker_(worker) {
      clock_.begin(kind_, worker_, Clock::now());
    }
    ~Waiting() { clock_.end(kind_, worker_, Clock::now()); }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    IdleClock& clock_;
    const LeaseKind kind_;
    const std::string& worker_;
  };

  void begin(LeaseKind kind, const std::string& worker, Clock::time_point now) {
    since_[kind][worker] = now;
  }
  void end(LeaseKind kind, const std::string& worker, Clock::time_point now) {
    const auto found = since_[kind].find(worker);
    if (found == since_[kind].end()) return;
    waited_[kind] += seconds(now - found->second);
    since_[kind].erase(found);
  }
  /// Seconds of all workers together since the last call, waits that still last included.
  double take(LeaseKind kind, Clock::time_point now) {
    double out = std::exchange(waited_[kind], 0.0);
    for (auto& [worker, since] : since_[kind]) out += seconds(now - std::exchange(since, now));
    return out;
  }

 private:
  static double seconds(Clock::duration duration) {
    return std::chrono::duration<double>(duration).count();
  }
  std::map<LeaseKind, std::map<std::string, Clock::time_point>> since_;
  std::map<LeaseKind, double> waited_;
};

}  // namespace praetor
