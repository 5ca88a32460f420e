#pragma once

#include <filesystem>

namespace praetor {

/// `praetor controller RUN_DIR`: serves the run until it is ended (by the supervisor, or by
/// SIGTERM). Takes up where an earlier controller of the run left. @return exit status
int run_controller(const std::filesystem::path& run_dir);

}  // namespace praetor
