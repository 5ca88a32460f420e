#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "actors/job/stage_config.h"

namespace praetor {

/// The metrics by which a kind of stage is judged.
struct StageMetrics {
  std::string quality;  ///< of an evaluation; picks the best checkpoint
  bool more_is_better = true;
  std::string curve;  ///< of a step; what the summary draws
};
StageMetrics metrics_of(StageKind kind);

/// What a stage reached, read from the run's metrics.jsonl and samples/.
struct StageSummary {
  std::optional<double> before;  ///< quality at step 0
  std::optional<double>
      after;         ///< of the result: the last evaluation, or the best with checkpoint.keep: best
  std::string text;  ///< for people: figures, a small plot, samples before and after
};
StageSummary summarise(const std::filesystem::path& run_dir, const StageConfig& stage);

}  // namespace praetor
