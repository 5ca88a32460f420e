#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "actors/launch/exit_report.h"

namespace praetor {

/// What to start.
struct ChildCommand {
  std::vector<std::string> argv;                   ///< argv[0] is looked up in PATH
  std::map<std::string, std::string> environment;  ///< added to ours, or in place of ours
  std::filesystem::path log_file;  ///< its stdout and stderr are appended; empty: our stderr
  int64_t tail_lines = 20;         ///< of the log, for the report
};

/// A process of this machine: started by the constructor, ended at the latest by the destructor.
///
/// It leads a process group of its own, reads nothing (stdin is /dev/null), inherits no other file
/// and starts with default signal handling. It does not outlive us: the kernel sends it SIGKILL
/// when the thread that forked it ends (PR_SET_PDEATHSIG), so that every fork is made by one thread
/// that lives as long as the process. Its own children have no such bond: when it ends while we
/// live, what is left of its group gets SIGKILL; when we are killed, they must look after
/// themselves (die_with_parent.h). Not synchronised.
class ChildProcess {
 public:
  /// Returns once the program runs.
  /// @throws MissingInput when there is no such program; InvalidArgument for an empty argv;
  /// IoError for a log that cannot be opened; TemporaryError when no process can be made.
  explicit ChildProcess(ChildCommand command);
  ~ChildProcess();  ///< ends the group with SIGKILL if the process still runs
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  const ChildCommand& command() const { return command_; }
  /// Becomes readable for poll(2) when the process ends; -1 where the kernel has no such thing.
  int wait_handle() const { return handle_; }

  /// The report, once the process has ended; until then nullptr. Collects it (no zombie stays) and
  /// ends what is left of its group.
  const ExitReport* poll();
  /// The same, after a wait of at most `timeout`.
  const ExitReport* wait(std::chrono::milliseconds timeout);

  /// Sends a signal to the whole group; nothing when the process has ended.
  void signal(int number);
  /// SIGKILL to the group, whatever state it is in; poll() tells of the end. `why` goes into the
  /// report.
  void kill(const std::string& why);
  /// SIGTERM to the group (a stopped one is continued), SIGKILL after `grace`. @return the report
  const ExitReport& terminate(std::chrono::milliseconds grace, const std::string& why);
  /// The first half of terminate().
  void ask_to_end(const std::string& why);

 private:
  int open_log();
  void start();
  void collect();

  ChildCommand command_;
  pid_t pid_ = -1;
  int handle_ = -1;
  std::chrono::steady_clock::time_point started_;
  int64_t log_begin_ = 0;  // bytes in the log before it
  std::optional<std::filesystem::path> oom_file_;
  std::optional<int64_t> oom_kills_;  // when it started
  std::string killed_by_;
  bool sent_kill_ = false;
  std::optional<ExitReport> report_;
};

}  // namespace praetor
