#pragma once

#include <filesystem>
#include <string>

namespace praetor {

struct RelayOptions {
  std::filesystem::path run_dir;
  std::string name;       ///< unique in the run; RUN_DIR/NAME.json says where it answers
  std::string advertise;  ///< host that workers reach it under; empty: as the job says
};

/// `praetor relay`: passes on the calls of workers to the controller of a run, until the run is
/// over or a signal asks for the end. @return exit status
int run_relay(const RelayOptions& options);

}  // namespace praetor
