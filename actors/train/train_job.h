#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "actors/job/job_config.h"

namespace praetor {

struct TrainOptions {
  std::filesystem::path job;
  std::vector<std::string> overrides;  ///< --set
  std::string resume = "never";  ///< never: a new run; auto: the newest run of this name; else a
                                 ///< run directory or a checkpoint in one
  std::string until;             ///< the last stage to run; empty: the job's last
};

/// Runs a whole job and returns the exit status. Within a Slurm allocation that its launcher knows
/// of, it saves before the end of the allocation and puts the job back into the queue: 75 then. The
/// run directory's path is printed first.
/// @throws ConfigError before anything is made when the job is wrong in any way
int train_job(const TrainOptions& options);

struct Replayed {
  std::string stage;
  int64_t step = 0;
  std::string loss_digest, gradient_digest;                    ///< now
  std::string recorded_loss_digest, recorded_gradient_digest;  ///< then
  bool identical() const {
    return loss_digest == recorded_loss_digest && gradient_digest == recorded_gradient_digest;
  }
};

/// Trains step `step` of a stage of a run again from the newest checkpoint before it (or from the
/// stage's beginning) and compares digests. Nothing of the run is changed. `stage` empty: the last
/// one that trained.
/// @throws DataError for a step that was not recorded, or whose payload was pruned
Replayed replay_job(const std::filesystem::path& run_dir, const std::string& stage, int64_t step);

}  // namespace praetor
