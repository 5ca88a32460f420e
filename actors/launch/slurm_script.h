#pragma once

#include <filesystem>
#include <string>

#include "actors/job/job_config.h"

namespace praetor {

/// What a batch script is made for, beside the job itself.
struct SlurmScript {
  std::filesystem::path run_dir;
  std::filesystem::path program;  ///< praetor
  std::filesystem::path folder;   ///< working directory of the run
  std::string until;              ///< the stage that it ends with; empty: the job's last
  std::string after;              ///< id of the job that must end well before; empty: none
};

/// The text for sbatch: its options, modules and environment as `launcher.slurm` says, and
/// `praetor train` on the run directory, which goes on where an earlier run of the job ended.
std::string render_slurm_script(const JobConfig& job, const SlurmScript& script);

/// `word` as one word of a shell.
std::string shell_quoted(const std::string& word);

}  // namespace praetor
