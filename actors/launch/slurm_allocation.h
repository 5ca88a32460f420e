#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace praetor {

/// The nodes of one component of a job: of an ordinary job there is one, of a heterogeneous one
/// the learners' and the workers'.
struct SlurmComponent {
  std::string job_id;
  std::vector<std::string> nodes;
};

/// The Slurm job that this process runs in.
struct SlurmAllocation {
  std::string job_id;  ///< of the whole: what scancel and scontrol take
  std::vector<SlurmComponent> components;
  std::string node;  ///< that this process runs on; empty: none of them (after salloc)

  /// From the environment that Slurm gives; nothing outside of a job.
  /// @throws DataError for a node list that cannot be read
  static std::optional<SlurmAllocation> current(
      const std::function<std::string(const std::string&)>& variable);
  static std::optional<SlurmAllocation> current();
};

/// Time until the job is ended by its limit; nothing when it has none, or Slurm does not answer.
std::optional<std::chrono::seconds> slurm_time_left(const std::string& job_id);

/// "RUNNING", "COMPLETING", ...; empty for a job that Slurm does not know (any more).
/// @throws MissingInput, TemporaryError when squeue cannot be asked
std::string slurm_job_state(const std::string& job_id);

/// Puts a job that runs back into the queue; Slurm then ends this run of it. @return what Slurm
/// said against it; empty: done
std::string slurm_requeue(const std::string& job_id);

}  // namespace praetor
