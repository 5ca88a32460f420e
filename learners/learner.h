#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/collective/collective.h"
#include "core/data/example.h"
#include "core/data/experience.h"
#include "core/model/attribute_gate.h"
#include "core/model/checkpointing.h"
#include "core/model/lora.h"
#include "core/model/model_weights.h"
#include "core/model/tensor_source.h"
#include "core/model/transformer.h"
#include "learners/algorithm.h"
#include "learners/optim/optimizer_config.h"
#include "learners/sharding/flat_unit.h"
#include "learners/sharding/sharding_config.h"

namespace praetor {

/// Settings of the update loop.
struct LearnerConfig {
  OptimizerConfig optimizer;  ///< of the policy, or of the reward model
  ShardingConfig sharding;    ///< what the ranks keep in parts
  /// Networks in training keep their weights, and an adapter beside them learns (with its heads).
  std::optional<LoraConfig> lora;
  /// What forwards and backwards compute in: kFloat (the weights as they are), or kBFloat16 copies
  /// of float32 weights, with sums, norms, log-probabilities and losses in float32.
  at::ScalarType precision = at::kFloat;
  /// Where networks, gradients and optimizer states are, and forwards and backwards run; losses are
  /// computed on the CPU, from log-probabilities, values and scores. Of a device with a number its
  /// own is wanted: from_yaml says kCUDA, and who starts a rank which.
  at::Device device = at::kCPU;
  int64_t micro_batch_tokens =
      8192;  ///< tokens of one forward, prompt included; a longer sequence goes alone
  /// What the networks in training keep of a forward for its backward; moves no bit.
  ActivationCheckpointing activation_checkpointing = ActivationCheckpointing::kNone;
  double temperature = 1.0;      ///< > 0, the sampling temperature; 0 < t as ratios need it
  int64_t max_new_tokens = 128;  ///< of a response, as it is sampled
  /// The engine computes log-probabilities bit for bit as the learner does (float32 on CPU): those
  /// it gave under the present weights are the proximal ones, and need no forward. Not with `lora`,
  /// where the engine computes with merged weights, not at precision bfloat16, and not on another
  /// device than the CPU.
  bool exact_rollouts = false;
  uint64_t seed = 0;   ///< the job's
  uint32_t stage = 0;  ///< index of the stage in the job
  /// Keys optimizer, sharding, lora, precision, device, micro_batch_tokens and
  /// activation_checkpointing; the rest is the job's to set.
  static LearnerConfig from_yaml(YamlReader in);
};

/// Networks handed to a learner. What the algorithm's plan asks for and is missing here is made:
/// the reference and a critic with `init: policy` from the policy as it is now. With an adapter the
/// reference is the policy without it, and no network of its own.
///
/// A policy, or the backbone of `scalar`, may be a shell that waits for its weights, which the
/// learner reads: all at once, or where the ranks keep weights in parts unit by unit, so that no
/// rank ever holds more of it than its part and a unit. So it makes networks from the policy, too.
struct LearnerModels {
  std::unique_ptr<Transformer> policy;
  std::unique_ptr<Transformer> reference;
  std::unique_ptr<Transformer> anchor;
  std::unique_ptr<ScalarModel> scalar;   ///< the critic, or the reward model in training
  std::unique_ptr<AttributeGate> gate;   ///< over the attributes of `scalar`, which is frozen then
  std::optional<ScalarHead> value_head;  ///< of a shared critic
  /// Of a policy, or a backbone of `scalar`, that waits; null: it has its weights.
  std::shared_ptr<const ModelWeights> policy_weights, scalar_weights;
};

/// What one update did.
struct StepReport {
  Metrics metrics;
  int64_t optimizer_steps = 0;
  /// SHA-256 over the losses of all micro-batches, float64, in order: of each minibatch those of
  /// rank 0, rank 1, ...
  std::string loss_digest;
  /// SHA-256 over all gradients before clipping of every optimizer step. With several ranks: over
  /// the hexadecimal digests of the ranks' reduced parts, in rank order; of the first copy's, where
  /// there are several, which must be the others'.
  /// Of a probe: over its head's weights instead.
  std::string gradient_digest;
  /// JSON: "update", "stopped_early" and "epochs"[epoch][minibatch][rank][micro-batch][sequence],
  /// the order in which sequences were taken and how it was cut.
  std::string manifest;
};

/// Owns the networks in training, their optimizers and the algorithm's state, and performs updates:
/// forward, loss, backward, clip, step. An update is a function of state and input alone. One
/// thread at a time.
///
/// With a collective it is one rank of a data-parallel group (learners/README.md, "Ranks"): each
/// holds all weights and a part of the optimizer state (with `sharding` also of gradients, and of
/// weights; or groups of ranks hold a copy each), is given the same input, computes a share, and
/// ends with the same weights and the same report. Construction, update, evaluate, *_logprobs,
/// gather_weights and load_state are then calls that every rank makes alike; an error that one rank
/// meets in its share is thrown on all. CollectiveError leaves the learner unusable. Where
/// `sharding.tensor` splits layers, neighbours compute one share together.
class Learner {
 public:
  /// @param collective  borrowed, must outlive the learner; null: a world of one
  /// @throws InvalidArgument when a network is missing that cannot be made (policy; reward model;
  /// critic of `init: reward`), or one does not fit the policy (vocabulary), or ranks do not start
  /// from the same settings and weights; or precision bfloat16, or the device, does not go with the
  /// rest
  Learner(LearnerConfig config,
          std::unique_ptr<Algorithm> algorithm,
          LearnerModels models,
          Collective* collective = nullptr);
  ~Learner();
  Learner(Learner&&) noexcept;
  Learner& operator=(Learner&&) noexcept;

  /// Online: fills proximal and reference log-probabilities, values, rewards, advantages and
  /// returns of `experience`, then runs epochs x minibatches x micro-batches.
  /// @throws ShapeError when the parts of `experience` do not fit; InvalidArgument for an offline
  /// algorithm; DataError when loss or gradient is not finite (weights are then as before that
  /// optimizer step)
  StepReport update(Experience& experience);
  /// Offline (sft, reward_model): one optimizer step on all `examples`; pairs stand as chosen,
  /// rejected, chosen, ... (preference_model: as the question with the chosen one first, second,
  /// ...). Of a plan with a probe: its head in closed form, whatever it was before.
  /// @throws DataError naming the row when the plan has `reference_in_rows` and an example lacks
  /// it; the attribute of which a probe has too few labels
  StepReport update(const std::vector<Example>& examples);

  /// Without training: "loss", "ppl", "tokens" of the policy on the examples' targets at
  /// temperature 1; for a reward model "loss", "accuracy", "margin", "pairs" of pairs;
  /// of rows with labels what the algorithm says of them; for a policy of pairs "accuracy",
  /// "margin" (of log-ratios to the reference), "pairs"; where pairs are asked about "loss",
  /// "accuracy", "order_consistency", "probability", "pairs".
  Metrics evaluate(const std::vector<Example>& examples) const;
  /// Log-probabilities of the response tokens at the sampling temperature, [R] float32. No
  /// gradient.
  at::Tensor policy_logprobs(const Experience& experience) const;
  /// @throws InvalidArgument when the algorithm has no reference
  at::Tensor reference_logprobs(const Experience& experience) const;
  /// Of the examples' targets under the policy at temperature 1, [R] float32: before the first
  /// update what a reference says that is the policy as it began. No gradient.
  at::Tensor policy_logprobs(const std::vector<Example>& examples) const;

  /// This rank's share of everything that a bitwise resume needs: "policy/<name>",
  /// "critic/<name>", "reward_model/<name>", "gate/<name>", "anchor/<name>",
  /// "value_head/score.weight" (rank 0 alone, unless they are kept in parts), and its part of
  /// "optimizer/policy/exp_avg/<name>", ... (1-D pieces are "...<name>@BEGIN-END", elements of the
  /// flattened tensor; of layers that are split also ranges of columns, StatePlace). The tensors
  /// themselves, where they are, not copies. Of networks with adapters these alone,
  /// with heads in training: their weights are those of the initial models.
  std::vector<NamedTensor> state() const;
  /// Step counters, the algorithm's state; the same on every rank.
  std::string state_json() const;
  /// Into a learner made from the same configuration and the same initial models (the reference is
  /// theirs).
  /// @param tensors  of all ranks' states together; their number may be another than today's
  /// A rank reads what it keeps, tensor by tensor, and nothing else.
  /// @throws CheckpointError naming what is missing, there twice, unknown or of another shape, on
  /// every rank; nothing is changed then
  void load_state(const TensorSource& tensors, const std::string& json);
  void load_state(const std::vector<NamedTensor>& tensors, const std::string& json);

  /// Of the policy, or of the reward model; null: there is none.
  const LoraAdapter* adapter() const;
  /// How policy() or companion() is made; the adapter is whole on every rank and in the processor's
  /// memory (of a network on another device a copy as of this call), the base as visit_weights
  /// hands it out.
  Adapted adapted(const Transformer& model) const;

  /// Brings the weights of `models` (of this learner; null ones do not count) together on rank 0,
  /// or on every rank, for as long as the result lives; where weights are not kept in parts they
  /// are there in any case. Unit by unit, so that the other ranks never hold more than one. The
  /// learner must outlive the result, and makes no update, evaluation or log-probabilities before
  /// its end. With adapters: merges them into the weights that policy(), companion() and scalar()
  /// give, which stay as they are until the next call. Of networks on another device than the CPU
  /// it brings the weights to the processor's memory; evaluations and log-probabilities may go on
  /// beside such a result of a world of one.
  [[nodiscard]] std::shared_ptr<const void> gather_weights(
      const std::vector<const Transformer*>& models, bool on_every_rank = false) const;
  /// Hands `tensors`, parameters of this learner's networks, to `visit` on rank 0, some at a time,
  /// all once: those that are kept in parts unit by unit, so that rank 0 holds no more of them than
  /// a unit. They are good until `visit` returns. What `visit` throws is thrown at the end; every
  /// rank makes the call alike, and none beside an update or under gather_weights.
  void visit_weights(const std::vector<NamedTensor>& tensors,
                     const std::function<void(std::span<const NamedTensor>)>& visit) const;
  /// The same of `model` as others see it: with its adapter, if it has one, merged, in parts unit
  /// by unit, too. @param tensors  of model.parameters(), and of a head beside it
  void visit_weights(const Transformer& model,
                     const std::vector<NamedTensor>& tensors,
                     const std::function<void(std::span<const NamedTensor>)>& visit) const;
  /// Of weights that are kept in parts.
  const UnitMeter& unit_meter() const;
  /// Weights are kept in parts: reading them is a call that every rank makes.
  bool in_parts() const;
  /// Ranks 0 .. state_shards() - 1 keep one copy of everything (all of them, or `sharding.group`):
  /// state() of the others is empty.
  int32_t state_shards() const;

  /// Updates done.
  int64_t step() const;
  const Algorithm& algorithm() const;
  bool has_policy() const;
  /// Shared with an engine of the same process: an update writes to these very tensors; with an
  /// adapter the next gather_weights of it does. Where
  /// weights are kept in parts (sharding stage 3 with several ranks, or layers that are split), or
  /// on another device than the CPU, those of this one and of the networks below are readable under
  /// gather_weights alone.
  /// @throws InvalidArgument
  const Transformer& policy() const;
  /// The anchor, or the reference without one; null without either. Its tensors stay the same ones.
  /// At precision bfloat16 a reference that no engine samples from is of that type.
  const Transformer* companion() const;
  /// Critic or reward model. @throws InvalidArgument when there is none
  const ScalarModel& scalar() const;
  /// @throws InvalidArgument when there is none
  const AttributeGate& gate() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace praetor
