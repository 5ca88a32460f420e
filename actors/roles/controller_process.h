#pragma once

#include <filesystem>
#include <string>

namespace praetor {

/// `praetor controller RUN_DIR`: serves the run until it is ended (by the supervisor, or by
/// SIGTERM). Takes up where an earlier controller of the run left. `advertise`: the host that
/// others reach this process under, in place of network.advertise. @return exit status
int run_controller(const std::filesystem::path& run_dir, const std::string& advertise = "");

}  // namespace praetor
