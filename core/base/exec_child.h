#pragma once

#include <sys/types.h>

namespace praetor {

/// What a forked child becomes. All of it is made before the fork: afterwards the child may neither
/// allocate nor lock. Everything is borrowed.
struct ChildPlan {
  const char* program = nullptr;       ///< with an environment: a path; else looked up in PATH
  char* const* argv = nullptr;         ///< ends with null
  char* const* environment = nullptr;  ///< ends with null; null: ours
  pid_t parent = 0;                    ///< who forks
  int input = -1;                      ///< its stdin
  int output = -1;                     ///< its stdout; -1: our stderr
  int errors = -1;                     ///< its stderr; -1: ours
  int failure = -1;                    ///< takes the errno of what failed (read_exec_failure)
  const int* handed_on = nullptr;      ///< further files that the program gets, under their numbers
  int handed_on_count = 0;
};

/// The child's life until the program takes over, by async-signal-safe calls alone: it leads a
/// process group of its own, gets SIGKILL when the thread that forked it ends, has default signal
/// handling and no file of ours beside the three and `handed_on`. The files of the plan stand above
/// stderr.
[[noreturn]] void exec_child(const ChildPlan& plan);

/// What the other end of `failure` says: the errno of what failed; 0 when the program runs. Waits
/// for one or the other.
int read_exec_failure(int fd);

}  // namespace praetor
