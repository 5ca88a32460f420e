#pragma once

#include <chrono>
#include <string>

#include "core/base/error.h"

namespace praetor {

/// A piece of work was given up because its time was over.
class TimeoutError : public Error {
 public:
  explicit TimeoutError(const std::string& message)
      : Error(ErrorCode::kDeadlineExceeded, kExitTemporary, message) {}
};

/// The moment at which a piece of work is given up. Nothing is interrupted: whoever works asks,
/// often enough. Immutable; any thread.
class Deadline {
 public:
  static Deadline never() { return {Clock::time_point::max(), {}}; }
  static Deadline after(std::chrono::milliseconds budget) {
    return {Clock::now() + budget, budget};
  }

  bool passed() const { return end_ != Clock::time_point::max() && Clock::now() >= end_; }
  /// @throws TimeoutError "timeout after 2000 ms" once the moment has passed
  void check() const {
    if (passed()) throw TimeoutError(message());
  }
  std::string message() const { return str("timeout after ", budget_.count(), " ms"); }

 private:
  using Clock = std::chrono::steady_clock;
  Deadline(Clock::time_point end, std::chrono::milliseconds budget) : end_(end), budget_(budget) {}
  Clock::time_point end_;
  std::chrono::milliseconds budget_;
};

}  // namespace praetor
