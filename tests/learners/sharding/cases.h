#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/collective/collective.h"
#include "learners/learner.h"

namespace praetor::testing {

/// "ppo" (separate critic), "ppo_shared", "grpo", "sft", "reward_model", "attribute_model",
/// "attribute_gate", "dpo": tiny models, fixed batches. make_case and update_case also know
/// "nash_md".
const std::vector<std::string>& learner_cases();

struct CaseOptions {
  double max_grad_norm = 1.0;
  int64_t minibatches = 2;  ///< of ppo and grpo: optimizer steps of an update
  uint64_t seed = 1;        ///< of the initial weights
  int64_t stage = 1;        ///< of sharding
  int64_t micro_batch_tokens = 9;
  bool tied = true;    ///< the head is the embedding
  int64_t layers = 2;  ///< of every network
  int64_t prefetch = 1;
  ActivationCheckpointing checkpointing = ActivationCheckpointing::kNone;
  std::optional<LoraConfig> lora = {};
  int64_t group = 0;                    ///< ranks of a copy; 0: all
  at::ScalarType weights = at::kFloat;  ///< type of the networks
  std::filesystem::path folder = {};    ///< a causal model that the networks are read from
  std::string optimizer = "adamw";  ///< with a momentum, or a first moment, where there may be one
  at::ScalarType state_dtype = at::kFloat;
  at::ScalarType precision = at::kFloat;
  double learning_rate = 1e-3;  ///< twice that of a separate critic
  int64_t tensor = 1;           ///< ranks that every layer is split over
  bool emulated = false;        ///< each rank learns on an emulated device of its own
  bool direct = false;          ///< and they exchange what is there over an emulated NCCL
  bool offload = false;         ///< of the optimizer's states
  bool operators = false;  ///< there AdamW steps by LibTorch's, not by the GPU library's kernel
  int64_t heads = 4, kv_heads = 2;
  bool few = false;  ///< updates 1, 3, ... take so little that of three ranks some get nothing
};

/// @param ranks  null: a world of one
Learner make_case(const std::string& name, Collective* ranks, const CaseOptions& options = {});

/// Update `step` (0, 1, ...), on the same data for every learner of the case.
/// @param few  so little that of three ranks some get nothing
StepReport update_case(const std::string& name, Learner& learner, int step, bool few = false);

/// The loss of a report, whatever its name.
double loss_of(const std::string& name, const StepReport& report);

/// Five pairs: chosen, rejected, ...
std::vector<Example> example_pairs();

/// SHA-256 over the bytes of all weights that `learner` trains. Where ranks keep them in parts, a
/// call that all of them make.
std::string weights_digest(const Learner& learner);

}  // namespace praetor::testing
