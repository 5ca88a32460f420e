#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace praetor {

/// What is known of a process that has ended.
struct ExitReport {
  enum class Memory : uint8_t {
    kNoSign,
    kSuspected,  ///< SIGKILL that nobody here sent
    kSeen,       ///< and the kernel counted an out-of-memory kill in its cgroup meanwhile
  };

  std::string command;  ///< as a shell would show it, cut
  pid_t pid = 0;
  int status = 0;         ///< exit status, when signal is 0; -1: somebody else collected it
  int signal = 0;         ///< that ended it, else 0
  std::string killed_by;  ///< why we ended it; empty: it ended by itself
  Memory memory = Memory::kNoSign;
  std::chrono::milliseconds run_time{0};
  int64_t peak_memory_bytes = 0;      ///< its own largest resident size, without children's
  std::filesystem::path log_file;     ///< empty: none
  std::vector<std::string> log_tail;  ///< last lines that it, and its children, wrote there

  bool success() const { return signal == 0 && status == 0; }
  /// As a shell says it: 128 + signal for a killed one.
  int exit_status() const { return signal != 0 ? 128 + signal : status; }
  /// False for statuses that a second try would only repeat: 64, 65, 66, 77, 78.
  bool worth_retrying() const;
  /// "exit status 65 (bad data, model or checkpoint)", "killed by SIGKILL (no heartbeat for 30 s)".
  std::string how() const;
  /// One screen: how it ended, run time, memory, the last lines of its log.
  std::string text() const;
};

/// Meaning of an exit status of Praetor's programs and of shells; "" for one without.
std::string exit_status_meaning(int status);
/// "SIGKILL"; "signal 99" for one without a name.
std::string signal_name(int number);

/// The file in which the kernel counts out-of-memory kills of this process's cgroup, which its
/// children inherit: memory.events (v2) or memory.oom_control (v1); nothing where it cannot be
/// read.
std::optional<std::filesystem::path> oom_kill_file(
    const std::filesystem::path& cgroups = "/sys/fs/cgroup",
    const std::filesystem::path& self = "/proc/self/cgroup");
/// The count in such a file; nothing when it cannot be read.
std::optional<int64_t> oom_kill_count(const std::filesystem::path& file);

/// The last `lines` lines of what stands in `file` from byte `from` on, cut to a screen's width and
/// made printable. Nothing when the file cannot be read.
std::vector<std::string> log_tail(const std::filesystem::path& file, int64_t from, int64_t lines);

}  // namespace praetor
