#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/deadline.h"
#include "reward/sandbox/system_calls.h"

namespace praetor {

/// What one program may use.
struct SandboxLimits {
  std::chrono::milliseconds wall{20'000};
  int64_t cpu_seconds = 10;                   ///< of each process
  int64_t memory_bytes = int64_t{2} << 30;    ///< of each process's addresses, and resident of all
  int64_t scratch_bytes = int64_t{64} << 20;  ///< of files in /tmp
  int64_t output_bytes = int64_t{64} << 10;   ///< of stdout
  int64_t processes = 64;                     ///< threads count
};

/// How a program in the sandbox ended.
struct SandboxResult {
  enum class End : uint8_t {
    kExited,  ///< by itself, or by a signal: `status`
    kWall,
    kCpu,
    kMemory,
    kOutput,  ///< it wrote more than it may
  };
  End end = End::kExited;
  int status = 0;      ///< as a shell has it: 128 + n for signal n
  std::string output;  ///< stdout, at most output_bytes
  std::string errors;  ///< the end of stderr
};

/// Runs untrusted programs under bubblewrap: no network, a root of /usr and libraries that cannot
/// be written, an empty /tmp of its own in memory, no devices but null, zero and random, no /proc,
/// no environment, no capability, an unprivileged user of its own, and SystemCallFilter. Everything
/// that a program started ends with it. Any thread.
class Sandbox {
 public:
  /// @param folders  further folders that programs may read
  /// @throws MissingInput when bubblewrap is not installed
  explicit Sandbox(SandboxLimits limits, std::vector<std::filesystem::path> folders = {});

  /// Address space, CPU time, file size and number of processes are for the program to set on
  /// itself before it runs anything untrusted (setrlimit); the rest is seen to here.
  /// @param command  an absolute path and arguments
  /// @param input    all of stdin
  /// @throws TimeoutError when `deadline` passes before a limit; TemporaryError when no sandbox can
  /// be made, with the reason
  SandboxResult run(const std::vector<std::string>& command,
                    std::string_view input,
                    const Deadline& deadline) const;

  const SandboxLimits& limits() const { return limits_; }

 private:
  std::vector<std::string> wrapped(const std::vector<std::string>& command,
                                   int filter,
                                   int report) const;

  SandboxLimits limits_;
  std::vector<std::filesystem::path> folders_;
  std::vector<std::string> prefix_;  ///< what stands before bubblewrap's arguments
  SystemCallFilter filter_;
};

}  // namespace praetor
