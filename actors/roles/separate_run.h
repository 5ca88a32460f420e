#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "actors/job/job_config.h"

namespace praetor {

/// Runs a job with `placement: separate`: starts the controller here, and learner group and workers
/// where the job's launcher says, as processes of their own; watches them, replaces those that die
/// or hang, and ends them all when the learners are done. What happens to a process is said on
/// stderr in one screen; the learners' lines are passed on. No process of it outlives the call.
///
/// `from`: the checkpoint to go on from; nothing: each stage's newest. `until`: the last stage.
/// @return exit status of the job @throws Interrupted once the learners have saved
int run_separate(const JobConfig& job,
                 const std::filesystem::path& run_dir,
                 const std::optional<std::filesystem::path>& from,
                 const std::string& until = "");

}  // namespace praetor
