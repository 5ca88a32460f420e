#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"

namespace praetor {

/// An item of `launcher.hosts`: "HOST" or "HOST:SLOTS".
struct HostSlots {
  std::string host;
  int64_t slots = 1;  ///< processes that it takes
};

/// What one group of nodes of a Slurm job is made of.
struct SlurmNodes {
  int64_t nodes = 1;
  std::string partition;  ///< empty here and below: Slurm's default
  std::string constraint;
  std::string memory;         ///< of each node, as in --mem
  int64_t cpus_per_node = 0;  ///< 0: Slurm's default
  int64_t gpus_per_node = 0;
};

/// Section `launcher.slurm`: the allocation that `praetor submit` asks for.
struct SlurmConfig {
  SlurmNodes all;      ///< keys of the section itself; of a heterogeneous job the learners' nodes
  SlurmNodes workers;  ///< section `workers`; nodes 0: the workers run on the nodes above
  std::string account, qos, time;
  bool requeue = true;   ///< goes on by itself after a lost node and at the end of its time
  int64_t signal = 120;  ///< seconds before the end of the allocation that Slurm warns
  double margin = 60;    ///< seconds that are left when the checkpoint is written
  std::string stages;    ///< together: one job; chain: one job a stage
  std::vector<std::string> modules;
  std::map<std::string, std::string> environment;
  std::vector<std::string> setup;       ///< lines of shell before the run
  std::vector<std::string> container;   ///< words before the program of each step
  std::string program;                  ///< praetor inside of it; empty: where this one lies
  std::vector<std::string> directives;  ///< further words of #SBATCH lines
  static SlurmConfig from_yaml(YamlReader in);
  bool heterogeneous() const { return workers.nodes > 0; }
};

/// Section `launcher`: where the processes of `placement: separate` are started.
struct LauncherConfig {
  std::string kind = "local";  ///< local, mpirun, slurm
  std::vector<HostSlots> hosts;
  std::vector<std::string> remote_shell = {"ssh"};
  SlurmConfig slurm;
  static LauncherConfig from_yaml(YamlReader in);
  /// True when processes of one run may lie on several hosts.
  bool spans_hosts() const;
};

/// True for the names by which a machine calls itself: its host name, with or without the domain,
/// and those of the loopback.
bool is_this_host(const std::string& host);

}  // namespace praetor
