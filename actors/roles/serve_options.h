#pragma once

#include <filesystem>
#include <string>

#include "actors/job/roles_config.h"
#include "actors/rpc/server.h"

namespace praetor {

/// How a server of a run listens, with its identity where the wire is encrypted: the user's, or one
/// that the run's authority issues for the host that is advertised. `advertise` empty: as the job
/// says. @throws as read_identity and issue_server_identity
ServeOptions serve_options(const NetworkConfig& network,
                           const std::filesystem::path& run_dir,
                           const std::string& run_id,
                           const std::string& secret,
                           const std::string& advertise);

}  // namespace praetor
