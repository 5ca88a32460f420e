#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "actors/roles/member.h"

namespace praetor {

struct WorkerOptions {
  RunAddress address;
  std::string name;               ///< empty: made from host and process id
  std::vector<LeaseKind> serves;  ///< at least one
  int threads = 0;                ///< of tensor work; 0: all cores
  std::filesystem::path scratch;  ///< for weights that are streamed; empty: a folder in /tmp
};

/// `praetor worker`: takes work from the controller of a run until the run is over or a signal asks
/// for the end. Several may join and leave at any time. @return exit status
int run_worker(const WorkerOptions& options);

}  // namespace praetor
