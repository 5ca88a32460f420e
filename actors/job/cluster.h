#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "actors/job/plan.h"

namespace praetor {

/// A cluster of equal nodes, as `praetor validate --cluster FILE` describes it.
struct ClusterConfig {
  std::vector<int64_t> gpus = {
      8, 16, 32, 64, 128, 256, 512, 1024};  ///< numbers of them to plan for
  int64_t gpus_per_node = 8;
  double memory_gib = 80;     ///< of a GPU
  double tflops = 989;        ///< of a GPU, dense products in the learner's precision
  double efficiency = 0.5;    ///< part of tflops that products reach, in (0, 1]
  double memory_gb_s = 3350;  ///< between a GPU and its memory
  double node_gb_s = 450;     ///< that a GPU sends to others of its node
  double network_gb_s = 50;   ///< that a GPU's share of its node's adapters sends
  double message_us = 5;      ///< of one message, beside its bytes
  /// @throws ConfigError naming file, line and key
  static ClusterConfig load(const std::filesystem::path& file);
};

/// One stage on so many GPUs, on all of which, in turn, the step's responses are sampled and the
/// update runs. The engine of each has a copy of the whole policy in bfloat16, which stays beside
/// the learner's rank during an update; its keys and values do not.
struct ClusterPoint {
  int64_t gpus = 0;
  std::string
      impossible;         ///< why the stage's layout is none of so many; then nothing else is known
  std::string too_large;  ///< why a GPU's memory does not suffice; empty: it does
  int64_t memory = 0;     ///< bytes of a GPU: in an update, or with the responses' first sequence
  int64_t engine = 0;     ///< bytes of that, the engine's weights; 0: nothing is generated
  double computing = 0;   ///< seconds of a step's passes (epochs) and optimizer steps
  double waiting = 0;     ///< for exchanges, beside that
  double generating = 0;  ///< seconds for a step's responses at their longest; infinite where the
                          ///< cache has no room for one
  double publishing = 0;  ///< seconds until every GPU has the new weights, in bfloat16
  double utilisation = 0;  ///< 6 FLOPs a parameter and token of what is trained (4 beside an
                           ///< adapter), over the peak of the update's seconds
  double step() const { return computing + waiting + generating + publishing; }
};

/// By the shapes alone, one entry for each number of GPUs (learners/README.md, "On a cluster"). A
/// stage without an update has none.
std::vector<ClusterPoint> plan_cluster(const StagePlan& stage, const ClusterConfig& cluster);

/// The points of every stage as lines for people.
std::string cluster_text(const std::vector<StagePlan>& plan, const ClusterConfig& cluster);

}  // namespace praetor
