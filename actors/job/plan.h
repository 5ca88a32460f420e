#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "actors/job/job_config.h"
#include "learners/memory_plan.h"

namespace praetor {

/// What one stage will take, computed from its shapes; float32 and one process unless it says
/// otherwise.
struct StagePlan {
  struct Network {
    std::string name;  ///< policy, reference, critic, reward model, reward/PART, ...
    int64_t parameters = 0;
    bool trained = false;
    bool learner = true;        ///< the learner holds it; else who scores
    bool whole = false;         ///< on every rank, but for its moments: an adapter
    int64_t element_bytes = 4;  ///< of a weight: 6 with a copy in bfloat16, 2 as that alone
    /// Of the optimizer's states: those that ranks keep in parts (absent: both moments of AdamW in
    /// float32), and those that each keeps whole.
    std::optional<int64_t> states = {};
    int64_t whole_states = 0;
    int64_t weight_bytes() const { return element_bytes * parameters; }
    int64_t gradient_bytes() const { return trained ? 4 * parameters : 0; }
    int64_t optimizer_bytes() const {
      return trained ? states.value_or(8 * parameters) + whole_states : 0;
    }
  };

  std::string name;
  std::string kind;
  std::vector<Network> networks;  ///< empty for a stage that trains nothing
  std::optional<int64_t> rows;    ///< of data.train
  std::optional<int64_t> steps;   ///< updates
  int64_t sequences_per_step =
      0;  ///< examples, both responses of each pair, or responses of one update
  int64_t cache_bytes =
      0;  ///< keys and values the engine holds at most; 0: nothing is generated, or on a GPU
  int64_t ledger_bytes_per_step =
      0;  ///< payload of a step's responses at their longest; 0: nothing is generated

  int64_t prompt_tokens = 0;    ///< of a prompt that responses are sampled to, at most
  int64_t response_tokens = 0;  ///< of a response, at most; 0: nothing is generated

  bool on_gpu = false;  ///< of the learner; beside it the host has a copy of what others read
  int64_t learner_ranks = 1;
  ShardingConfig sharding;
  /// Of ranks that hold the same part of each layer.
  int64_t ranks_of_copy() const { return sharding.ranks_of_copy(learner_ranks / sharding.tensor); }

  /// Of an update, on each rank, with every sequence at its longest.
  struct Update {
    MemoryPlan memory;
    int64_t packed_bytes = 0;
    int64_t micro_batches = 0;    ///< of one pass over a step's sequences
    int64_t tokens = 0;           ///< of that pass, all ranks
    double flops = 0;             ///< of that pass and the forwards before it, all ranks
    int64_t exchanged_bytes = 0;  ///< sent by a rank in those and one optimizer step
    int64_t epochs = 1;           ///< passes of a step
    int64_t optimizer_steps = 1;  ///< of a pass
    std::vector<PlannedNetwork> networks = {};
    /// As a step runs them forward once, before its passes: frozen ones, and those in training
    /// whose values, or log-probabilities of a reference or of the samples, are wanted.
    std::vector<PlannedNetwork> forwards = {};
    MemoryPlanOptions options = {};  ///< that memory is planned with
  };
  std::optional<Update> update;  ///< nothing for a stage without an optimizer

  int64_t model_bytes() const;  ///< weights, gradients and optimizer states of all networks
  /// The same of the learner's networks, as one of its ranks keeps them between steps.
  int64_t rank_bytes() const;
};

/// One entry a stage. The job has no errors.
std::vector<StagePlan> plan_job(const JobConfig& job);

/// The plan as lines for people.
std::string plan_text(const std::vector<StagePlan>& plan);

}  // namespace praetor
