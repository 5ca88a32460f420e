#pragma once

#include <filesystem>
#include <string>

namespace praetor {

/// `praetor learner RUN_DIR`: one rank of the learner group of a run of separate roles, alone or
/// under mpirun. Goes on from the newest checkpoint; with `from` (a checkpoint's folder) the first
/// process of the group goes on from there. `advertise`: the host that workers fetch weights from,
/// in place of network.advertise. @return exit status
int run_learner(const std::filesystem::path& run_dir,
                const std::filesystem::path& from,
                const std::string& advertise = "");

}  // namespace praetor
