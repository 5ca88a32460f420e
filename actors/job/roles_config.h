#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include "actors/job/launcher_config.h"
#include "actors/rpc/tls.h"
#include "core/config/yaml_reader.h"

namespace praetor {

/// Section `roles`: how many processes of each kind a job with `placement: separate` starts,
/// and their threads of tensor work.
struct RolesConfig {
  int64_t rollout_workers = 1;  ///< 0: all of them join by hand
  int64_t rollout_threads = 0;  ///< each; 0: the cores, divided by the workers
  int64_t reward_workers = 1;   ///< 0: the rollout workers score too
  int64_t reward_threads = 0;
  int64_t relay_workers = 0;  ///< workers that share a relay to the controller; 0: no relays
  int64_t learner_ranks = 1;
  int64_t learner_threads = 0;  ///< of each rank; 0: the job's `threads`, divided by the ranks
  /// What ranks on GPUs exchange tensors through. mpi: the processor's memory; nccl: the GPUs';
  /// auto: nccl where every rank can, else mpi.
  std::string learner_collective = "auto";
  double learner_timeout = 600;  ///< seconds that a rank waits for others in an exchange
  static RolesConfig from_yaml(YamlReader in);
};

/// Section `network`: where the servers of a run listen.
struct NetworkConfig {
  std::string bind = "127.0.0.1";  ///< host or address of the interface
  std::string advertise;           ///< host that others reach it under; empty: `bind`, or, where
                                   ///< that is every interface, the process's host name
  std::string interface;           ///< by name, in place of both: its address on each host
  /// Mutual TLS; auto: unless servers listen on the loopback alone and no certificate is given.
  std::string tls = "auto";
  /// The user's own, all three or none; empty: the run makes its own.
  std::filesystem::path certificate, key, ca;

  /// No other host can reach what listens as this says.
  bool local_only() const;
  bool encrypted() const;
  bool own_certificates() const { return !ca.empty(); }
  TlsFiles own_files() const { return {certificate, key, ca}; }
  /// Where the launcher uses several hosts the loopback is refused and every interface the default.
  static NetworkConfig from_yaml(YamlReader in, const LauncherConfig& launcher);

 private:
  void check_certificates(YamlReader& in) const;
};

/// Section `supervision`: when a process counts as lost, and what is done about it.
struct SupervisionConfig {
  double heartbeat = 2;      ///< seconds between signs of life
  double lost_after = 15;    ///< seconds of silence
  double hung_after = 600;   ///< seconds at work without progress
  double lease_time = 3600;  ///< seconds until work goes to another worker
  int64_t restarts = 10;     ///< of one process within ten minutes
  double patience = 120;     ///< seconds that a process tries a controller that does not answer
  static SupervisionConfig from_yaml(YamlReader in);
};

/// Section `publish`: how new weights reach the workers.
struct PublishConfig {
  /// file: mapped from a shared path; stream; auto: whichever works; nccl: broadcast to engines on
  /// GPUs, and auto for who misses one
  std::string via = "auto";
  std::filesystem::path folder;              ///< of the files; empty: RUN_DIR/weights
  int64_t bucket_bytes = int64_t{64} << 20;  ///< of a broadcast, >= 4096
  double timeout = 60;                       ///< seconds for joining a group, and for each bucket
  bool broadcasts() const { return via == "nccl"; }
  /// Where a run's weights are published as files.
  std::filesystem::path folder_of(const std::filesystem::path& run_dir) const {
    return folder.empty() ? run_dir / "weights" : folder / run_dir.filename();
  }
  static PublishConfig from_yaml(YamlReader in);
};

inline std::chrono::milliseconds milliseconds_of(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

}  // namespace praetor
