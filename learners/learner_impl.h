#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/sha256.h"
#include "core/collective/collective.h"
#include "core/collective/grid.h"
#include "core/model/lora.h"
#include "core/model/tensor_group.h"
#include "learners/algorithms/ridge.h"
#include "learners/compute_copy.h"
#include "learners/host_view.h"
#include "learners/learner.h"
#include "learners/micro_batch.h"
#include "learners/sharding/lock_step.h"
#include "learners/sharding/sharded_network.h"
#include "learners/sharding/sharded_optimizer.h"
#include "learners/sharding/split_model.h"
#include "learners/statistics.h"

namespace praetor {

/// What the networks say about one slice; undefined where the plan has no such network.
struct Outputs {
  at::Tensor logprob;    ///< [r]
  at::Tensor entropy;    ///< [r] when asked for
  at::Tensor rival;      ///< [r] log-probability of the pair's other target, when asked for
  at::Tensor value;      ///< [r]
  at::Tensor bootstrap;  ///< [n] value at the last token, when asked for
  at::Tensor score;      ///< [n] or [n,A]
  at::Tensor gate;       ///< [n,A]
};

struct Learner::Impl {
  LearnerConfig config;
  std::unique_ptr<Algorithm> algorithm;
  LearnerModels models;
  ModelPlan plan;
  std::unique_ptr<Collective> alone;  ///< when none was given
  Collective* ranks = nullptr;
  /// Where layers are split: the ranks that share one model's layers, and those that hold the same
  /// part of them as this one and divide the work; else there is no grid.
  CollectiveGrid grid;
  std::optional<TensorGroup> tensor;
  Collective* data = nullptr;  ///< those that divide the work: of the grid, or all
  CollectiveGrid groups;       ///< rows of these that keep a copy together; empty: all of them do
  /// At precision bfloat16, of every network but a frozen one that is of that type itself.
  std::vector<std::unique_ptr<ComputeCopy>> copies;
  UnitMeter meter;
  mutable LockStep lock_step;
  std::vector<std::unique_ptr<SplitModel>> split_models;
  std::unique_ptr<ScalarModel> whole_scalar;  ///< as others see it, where it is split
  /// Of parameters that are split where they lie in the whole ones.
  std::map<const c10::TensorImpl*, StatePlace> places;
  /// Those that are kept in parts beyond the optimizer's moments.
  std::vector<std::unique_ptr<ShardedNetwork>> sharded;
  /// "policy" (with a shared value head), "reward_model" or "gate", then "critic" (a separate one);
  /// none where the plan has a probe.
  std::vector<std::unique_ptr<ShardedOptimizer>> optimizers;
  int64_t updates = 0;  ///< done

  /// On another device than the CPU: networks as others see them; null where there is none.
  std::unique_ptr<HostView> policy_view, companion_view, scalar_view;
  /// Of a policy under an adapter without it, unless that is the companion.
  std::unique_ptr<HostView> base_view;
  std::unique_ptr<ScalarModel> host_scalar;  ///< of scalar_view's tensors, and a head
  mutable AttributeGate gate_here;           ///< as the last host_gate() found it
  bool on_device() const { return !config.device.is_cpu(); }
  /// @throws InvalidArgument for what does not go with a device
  void require_device() const;
  void add_host_views();
  /// Those that there are.
  std::vector<const HostView*> views() const;
  /// Of a network as others see it.
  const HostView* view_of(const Transformer& model) const;
  /// Learner::adapted of a device's networks.
  Adapted adapted_on_host(const Transformer& model) const;
  /// Calls `work` for the tensors that a view is made of, by index, while their memory is there:
  /// those in parts unit by unit, those that are split one by one. What it throws is thrown at the
  /// end.
  /// @param works          this rank does; the others take part in what it needs
  /// @param on_every_rank  all ranks work
  void over_tensors(const HostView& view,
                    bool works,
                    bool on_every_rank,
                    const std::function<void(size_t)>& work) const;
  std::shared_ptr<const void> gather_to_host(const std::vector<const Transformer*>& models,
                                             bool on_every_rank) const;
  void visit_on_host(const std::vector<NamedTensor>& tensors,
                     const std::function<void(std::span<const NamedTensor>)>& visit) const;
  const AttributeGate& host_gate() const;

  /// Of the policy or the reward model; of a separate critic; of the anchor. Null: there is none.
  std::unique_ptr<LoraAdapter> adapter, critic_adapter, anchor_adapter;
  int64_t adapter_version = 0;  ///< counts their changes; 0: they add nothing yet
  /// Networks with adapters as others see them; null where there is no such network.
  std::unique_ptr<Transformer> merged_policy, merged_anchor;
  std::unique_ptr<ScalarModel> merged_scalar;
  /// Where one of them comes from.
  struct Merged {
    Transformer* model = nullptr;  ///< of the base's own tensors until it is first merged
    const Transformer* base = nullptr;
    const LoraAdapter* adapter = nullptr;
    int64_t version = 0;  ///< of the adapter that is in it
  };
  mutable std::vector<Merged> merged;

  /// A network and the adapter that its forwards run with; null: none.
  struct Net {
    const Transformer* model = nullptr;
    const LoraAdapter* adapter = nullptr;
  };
  /// While it lives, the networks in training run with their adapters.
  struct AdaptersOn {
    explicit AdaptersOn(const Impl& learner);
    std::optional<AdapterScope> policy, scalar;
  };
  Net policy_net() const { return {models.policy.get(), adapter.get()}; }
  Net reference_net() const;
  Net anchor_net() const;
  /// The reward model's backbone, or the critic's.
  Net scalar_net() const;
  void add_adapters();
  /// From now on inputs of the adapters are left out as attempt `number` of this update has it.
  void begin_dropout(int64_t number);
  /// What an optimizer steps of `net`, and a state holds.
  static std::vector<NamedTensor> trained_parameters(const Net& net);
  std::vector<NamedTensor> trained_scalar_parameters() const;
  /// Entry of `model` in `merged`; null: it is no merged one.
  Merged* merged_of(const Transformer& model) const;
  /// Brings it up to date; the weights of its base can be read.
  void merge(Merged& one) const;

  struct Want {
    bool policy = true;
    bool critic = true;  ///< of a separate one
    bool entropy = false;
    bool rival = false;
    bool bootstrap = false;
  };
  /// Makes the grid. @throws InvalidArgument for what does not go with layers that are split
  void join_tensor_group();
  /// Splits every network.
  void split_networks();
  void split(Transformer& model);
  /// As others see it: the whole of one that is split.
  const Transformer& whole(const Transformer& model) const;
  /// Null: `whole` is as it is.
  SplitModel* split_of(const Transformer& whole) const;
  StatePlace place_of(const at::Tensor& parameter) const;
  /// Of what several ranks of a tensor group hold alike, the first one's counts.
  bool speaks_for(const StatePlace& place) const {
    return !tensor || tensor->rank() == 0 || !place.part.everywhere();
  }
  /// `work`, which runs forwards or backwards, in step with the ranks that share the layers.
  void in_step(const std::function<void()>& work) const;

  /// @throws InvalidArgument for what bfloat16 does not go with
  void add_copies();
  /// Null where the network computes with its own weights.
  ComputeCopy* copy_of(const Transformer& model) const;
  /// Whose weights forwards read in place of those of `model`.
  const Transformer& running(const Transformer& model) const;
  Transformer& running(Transformer& model);
  /// A scalar head on rows of the network's hidden states, in float32 (float64).
  at::Tensor values(const Transformer& model, const ScalarHead& head, const at::Tensor& rows) const;
  /// The weights of `model` have changed: its copy, where it has one, is made from them anew.
  void refresh_copy(const Transformer& model) const;
  /// The same of every network that an optimizer steps.
  void refresh_trained_copies() const;
  /// Of `sharded`; null where the network is whole on every rank.
  ShardedNetwork* sharding_of(const Transformer& model) const;
  ShardingRanks sharding_ranks() const {
    return groups.row ? ShardingRanks(*data, groups) : ShardingRanks(*data);
  }
  /// Splits the ranks into those that keep a copy together, as `sharding.group` says.
  /// @throws InvalidArgument unless it divides them
  void split_ranks();
  /// The ranks keep weights in parts.
  bool cuts_weights() const;
  /// What a network that waits for its weights reads them from.
  const ModelWeights& weights_of(const Transformer& model) const;
  /// Reads the networks that wait, unless that is done as they are cut; of split ones the parts.
  void read_networks();
  /// Puts the networks into parts as the stage says. @throws InvalidArgument on every rank when
  /// they have read different weights
  void shard_networks();
  void shard_all();
  void shard(const char* who, Transformer& model, ShardedNetwork::Options options);
  /// Of the weights that are read as networks are cut: who read them first, and their digests.
  std::map<const ModelWeights*, std::string> first_readers;
  std::map<std::string, std::string> read_digests;
  /// Of the first network of `who`'s weights.
  void note_read(const char* who, const NamedTensor& whole);
  void add_optimizers();
  /// Over the units of `model` where it has any, else (null, too) over `parameters`.
  void add_optimizer(const char* name,
                     std::vector<NamedTensor> parameters,
                     const Transformer* model,
                     OptimizerConfig settings);
  /// The heads of `model` have been used, for `outputs`.
  void finish(const Transformer& model, const std::vector<at::Tensor*>& outputs) const;
  /// The networks that a forward runs, as LockStep wants them.
  std::vector<LockStep::Use> uses(bool policy, bool backward) const;
  /// The weights of `model` that this rank steps or moves: its parts, or all.
  std::vector<NamedTensor> held(const Transformer& model) const;

  /// One forward of every network in training over a slice with at least one row; what they say is
  /// in the processor's memory.
  Outputs forward(const PackedSlice& slice, Want want) const;
  Outputs forward_on_device(const PackedSlice& slice, Want want) const;
  double temperature() const { return algorithm->online() ? config.temperature : 1.0; }
  /// Log-probabilities of all predicted tokens of `sequences` under `model`, [R] with 0 for those
  /// of others, without gradient; each rank computes its share.
  at::Tensor logprobs(const Net& net,
                      const SequenceBatch& batch,
                      double at_temperature,
                      const std::vector<int64_t>& sequences) const;
  /// Reward model's scores of all sequences, [N] or [N,A], without gradient; each rank computes its
  /// share.
  at::Tensor scores(const SequenceBatch& batch) const;
  /// Rows and targets are where the networks are; the rest is in the processor's memory.
  PackedSlice pack(const SequenceBatch& batch, const std::vector<int64_t>& sequences) const;
  /// `units` cut over the ranks, then each part by the token budget: [rank][micro-batch][sequence].
  using RankCut = std::vector<std::vector<std::vector<int64_t>>>;
  RankCut cut(const SequenceBatch& batch, const Units& units) const;
  /// The sequences as what the ranks made of them stands end to end.
  static std::vector<int64_t> sequences_of(const RankCut& cut);
  /// Calls `work` with this rank's micro-batches in order, in step with the other ranks and theirs.
  /// @param uses  the networks that a pass runs; `pass` counts the micro-batches of each rank
  void each_micro_batch(const RankCut& cut,
                        const std::function<std::vector<LockStep::Use>(size_t pass)>& uses,
                        const std::function<void(const std::vector<int64_t>&)>& work) const;
  static std::vector<int64_t> in_order(const SequenceBatch& batch);
  /// Sequences whose log-probabilities the algorithm wants.
  std::vector<int64_t> trained(const Experience& experience) const;
  /// True when the engine's log-probabilities of a sequence are those that the policy would give.
  bool knows_proximal(const Experience& experience, int64_t sequence) const;
  /// mismatch/logprob_*: how far the engine's log-probabilities of the policy's own samples are
  /// from those of the first forward in training. Tokens of older weights differ for a reason.
  std::vector<Statistic> mismatch(const Experience& experience,
                                  const MicroBatch& batch,
                                  const PackedSlice& slice,
                                  const std::vector<int64_t>& sequences) const;
  /// Policy and critic are trained one after the other (Algorithm::loss).
  bool networks_apart() const { return plan.policy && plan.critic == CriticKind::kSeparate; }
  /// Rows of a file that stay together: 2 for pairs.
  int64_t unit() const { return algorithm->sample_plan().rows == RowForm::kPreference ? 2 : 1; }

  /// [N,A] of the rows, where the algorithm wants labels; else undefined.
  at::Tensor labels_of(const std::vector<Example>& examples) const;
  /// Log-probabilities of all targets under the reference, [R], held or carried by the examples;
  /// undefined where the algorithm has none.
  at::Tensor reference_of(const std::vector<Example>& examples, const SequenceBatch& batch) const;
  Metrics evaluate_pairs(const SequenceBatch& batch, const at::Tensor& reference_logprob) const;
  Metrics evaluate_answers(const SequenceBatch& batch) const;
  Metrics evaluate_labels(const SequenceBatch& batch, const std::vector<Example>& examples) const;

  /// Proximal and reference log-probabilities and values of `experience`; each rank computes its
  /// share of the sequences.
  BatchContext prepare(Experience& experience, const SequenceBatch& batch) const;

  /// What one optimizer step works on.
  struct Step {
    const SequenceBatch& batch;
    const Experience* experience = nullptr;          ///< online
    const std::vector<Example>* examples = nullptr;  ///< offline
    at::Tensor mask;                                 ///< [R] bool
    at::Tensor constants;                            ///< [N,c] or undefined
    Units units;                                     ///< what it takes, in order
    RankCut micro_batches;
    at::Tensor reference_logprob;  ///< [R]; offline, where the algorithm has a reference
    bool first = false;            ///< of the update
    int64_t number = 0;            ///< of the update's attempts
  };
  /// What the micro-batches of one rank gave, in order.
  struct Share {
    std::vector<double> losses;
    std::vector<Statistic> statistics;
  };
  struct Digests {
    Sha256 loss;
    Sha256 gradient;
  };
  Denominators denominators(const Step& step) const;
  /// The step has nothing to learn from.
  bool empty(const Denominators& totals) const;
  MicroBatch micro_batch(const Step& step,
                         const std::vector<int64_t>& sequences,
                         const PackedSlice& slice,
                         const Outputs& outputs,
                         const Denominators& totals) const;
  /// Forward, loss and backward of this rank's micro-batches; gradients are left on the parameters.
  Share run_micro_batches(const Step& step, const Denominators& totals);
  /// The same on every rank; what all of them gave goes to `statistics` and `digests`.
  /// @return false when the step has nothing that counts
  bool accumulate(const Step& step, Statistics& statistics, Digests& digests);
  /// Runs `work` on every rank; what all of them gave goes to `statistics` and `digests`, in rank
  /// order.
  void collect(const std::function<Share()>& work, Statistics& statistics, Digests& digests) const;
  /// In place of all that, where the plan has a probe: the head's weights of each attribute from
  /// the step's rows, the same on every rank. @throws DataError naming an attribute with too few
  /// labels
  void fit_probe(const Step& step, Statistics& statistics, Digests& digests);
  /// Hidden states of the last tokens of this rank's share, micro-batch after micro-batch, [n,H].
  at::Tensor last_hidden(const Step& step) const;
  /// Over the ranks, in their order.
  RidgeSums summed(RidgeSums own) const;
  /// fit_ridge on the first rank, for all.
  RidgeFit fit_attribute(const std::string& name,
                         const RidgeSums& taught,
                         const RidgeSums& held_out) const;
  /// What the head that was found says of this rank's micro-batches.
  Share probe_share(const std::vector<std::vector<int64_t>>& parts,
                    const at::Tensor& features,
                    const at::Tensor& labels,
                    const Denominators& totals) const;
  /// Reduction, clip and step of every optimizer.
  void apply(Statistics& statistics, Digests& digests);
  void drop_gradients();
  /// Moves the anchor after the update that is about to be counted.
  void move_anchor();

  StepReport report(const Statistics& statistics, Digests& digests, Metrics metrics) const;

  /// Every network that a rank holds, under the names of the state.
  std::vector<NamedTensor> networks() const;
  /// Those in training: what the state holds.
  std::vector<NamedTensor> weights() const;
  struct HeldPiece {
    std::string name;  ///< of the whole tensor
    int64_t begin = 0;
    StatePlace place;         ///< of what this rank's tensor group leaves to it
    at::Tensor tensor;        ///< its elements from `begin` on; of its shape when it is all of it
    bool everywhere = false;  ///< every rank that divides the work holds all of it
  };
  /// Of weights kept in parts this rank's pieces, of others all, or its part of a split one.
  std::vector<HeldPiece> held_weights() const;
  struct HeldMoment {
    std::string name;  ///< "exp_avg/NAME"
    int64_t begin = 0;
    StatePlace place;         ///< of NAME, or of what is kept for it in another form
    at::Tensor tensor;        ///< its elements from `begin` on
    bool everywhere = false;  ///< every rank that divides the work holds all of it
  };
  /// What this rank keeps of an optimizer's state.
  std::vector<HeldMoment> held_moments(const ShardedOptimizer& optimizer) const;
  /// Of the parts of all ranks of a copy one digest. @throws InternalError on every rank when two
  /// copies differ
  std::string of_ranks(const std::string& gradient, const std::string& weights) const;
  /// @throws InvalidArgument on every rank unless all start from the same settings and weights,
  /// but for those that are read later
  void require_equal_start() const;
  /// @param starts  of each rank a JSON object
  static void require_equal(const std::vector<std::string>& starts);
};

}  // namespace praetor
