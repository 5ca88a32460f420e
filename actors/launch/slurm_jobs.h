#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace praetor {

/// A Slurm job of a run.
struct SlurmJob {
  std::string id;
  std::string until;             ///< the stage that it ends with; empty: the job's last
  std::filesystem::path script;  ///< as it was handed to sbatch
};

/// Hands a script to sbatch. @return the job's id
/// @throws MissingInput where there is no sbatch; ConfigError, with sbatch's words, when Slurm does
/// not take the job
std::string sbatch(const std::filesystem::path& script);

/// RUN_DIR/slurm.json: the jobs that were submitted for a run, the newest submission's.
void write_slurm_jobs(const std::filesystem::path& run_dir, const std::vector<SlurmJob>& jobs);
/// @throws MissingInput when nothing was submitted; DataError for a file that is not sound
std::vector<SlurmJob> read_slurm_jobs(const std::filesystem::path& run_dir);

/// Ends a job. @return false when Slurm knows no such job that has not ended
/// @throws MissingInput where there is no scancel; TemporaryError, with its words
bool cancel_slurm_job(const std::string& id);

}  // namespace praetor
