#pragma once

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <string>

namespace praetor::cli {

struct LogprobsOptions {
  std::filesystem::path model;
  std::filesystem::path input;
  std::string dtype = "float32";  ///< float32 or bfloat16
  int64_t batch_tokens = 8192;    ///< tokens a forward, >= 1
  int threads = 0;                ///< 0: all cores
};

/// `praetor logprobs`: JSON lines in, {"tokens":[...],"logprobs":[...]} lines out in the same
/// order. Every row is read and checked before the first is scored. @throws MissingInput; DataError
/// naming the file and line of a bad row.
void run_logprobs(const LogprobsOptions& options, std::ostream& out);

}  // namespace praetor::cli
