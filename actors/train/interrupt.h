#pragma once

#include <string>

namespace praetor {

/// Turns SIGINT and SIGTERM into a request that the training loop sees at its next safe point: it
/// then checkpoints and leaves with status 128 + signal. A second signal ends the process at once.
/// One object a process.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  /// The signal that asked for the end, or 0.
  static int requested();
};

/// Thrown through the loop once it has saved what it must.
struct Interrupted {
  int signal = 0;
};

}  // namespace praetor
