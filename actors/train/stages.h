#pragma once

#include <filesystem>
#include <optional>

#include "actors/train/stage_runner.h"

namespace praetor {

/// Runs the stages of a job that are not finished, each from its newest checkpoint; with
/// `from_checkpoint` that stage from there, and all after it from their beginning; with `until` the
/// stage of that name is the last one. Every rank of the learner group calls it alike.
/// @throws Interrupted after saving a checkpoint
void run_stages(RunContext& context,
                const std::optional<std::filesystem::path>& from_checkpoint,
                const std::string& until = "");

/// The newest durable checkpoint of a stage whose step is below `before`.
std::optional<std::filesystem::path> newest_checkpoint(LearnerService& run,
                                                       const std::filesystem::path& run_dir,
                                                       int32_t stage,
                                                       int64_t before);

}  // namespace praetor
