#pragma once

#include <filesystem>
#include <string>

namespace praetor {

struct LearnerOptions {
  std::filesystem::path run_dir;
  std::filesystem::path from;  ///< the first process of the group goes on from this checkpoint
  std::string until;           ///< the last stage to run; empty: the job's last
  std::string advertise;       ///< host that workers fetch weights from; empty: as the job says
};

/// `praetor learner RUN_DIR`: one rank of the learner group of a run of separate roles, alone or
/// as a rank of mpirun or srun. Goes on from the newest checkpoint. @return exit status
int run_learner(const LearnerOptions& options);

/// Written by the first rank once every stage is done: srun also ends with status 0 when it lost
/// the node.
std::filesystem::path learners_done_file(const std::filesystem::path& run_dir);

}  // namespace praetor
