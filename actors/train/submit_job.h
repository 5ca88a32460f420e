#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace praetor {

struct SubmitOptions {
  std::filesystem::path job;
  std::vector<std::string> overrides;  ///< --set
  std::string resume = "never";        ///< never: a new run; auto: the newest of this name; else a
                                       ///< run directory
  bool dry_run = false;                ///< print the script, make nothing
};

/// Hands a job to Slurm, whatever its `launcher.kind`: checks it whole, makes its run directory
/// with the batch script, submits it and records the job's id there. Says on stderr where it is and
/// how to watch it, and prints {"run", "jobs"}. @return exit status
/// @throws ConfigError for a wrong job, or one that Slurm does not take: then no run directory
/// stays
int submit_job(const SubmitOptions& options);

/// Ends Slurm jobs: a job's id, a run directory that was submitted, or a job file, whose newest run
/// is meant. Prints {"cancelled", "ended"}: those ended now, and those that had ended.
/// @return exit status @throws MissingInput when there is nothing of the kind
int cancel_job(const std::string& what);

}  // namespace praetor
