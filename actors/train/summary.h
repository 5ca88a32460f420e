#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "actors/job/stage_config.h"

namespace praetor {

/// What a stage reached, read from the run's metrics.jsonl and samples/.
struct StageSummary {
  std::optional<double> before;  ///< quality at step 0
  std::optional<double>
      after;         ///< of the result: the last evaluation, or the best with checkpoint.keep: best
  std::string text;  ///< for people: figures, a small plot, samples before and after
};
StageSummary summarise(const std::filesystem::path& run_dir, const StageConfig& stage);

}  // namespace praetor
