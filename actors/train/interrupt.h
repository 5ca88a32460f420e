#pragma once

#include <string_view>

namespace praetor {

constexpr std::string_view kSaving =
    "\ninterrupted: saving a checkpoint at the next step; once more to leave at once\n";

/// Turns SIGINT and SIGTERM into a request that the training loop sees at its next safe point: it
/// then checkpoints and leaves with status 128 + signal. SIGUSR1 counts as SIGTERM: launchers of
/// MPI pass it on, but end their ranks at a SIGTERM. A second signal ends the process at once.
/// One object a process.
class InterruptGuard {
 public:
  /// `notice`: what the first signal puts on stderr, of static storage; empty: nothing.
  explicit InterruptGuard(std::string_view notice = kSaving);
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
