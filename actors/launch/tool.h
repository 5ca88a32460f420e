#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace praetor {

/// What a program said.
struct ToolResult {
  int status = 0;        ///< exit status; 128 + signal for one that a signal ended
  std::string out, err;  ///< its stdout and stderr, without white space at the end
  bool success() const { return status == 0; }
};

/// Runs a short program of the system (squeue, sbatch) to its end. It reads nothing.
/// @throws MissingInput when there is no such program; TemporaryError when it cannot be started or
/// has not ended in time: it is killed then
ToolResult run_tool(const std::vector<std::string>& argv,
                    std::chrono::milliseconds timeout = std::chrono::milliseconds(60'000));

}  // namespace praetor
