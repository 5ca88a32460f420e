#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/base/sha256.h"
#include "learners/optim/optimizer.h"
#include "learners/sharding/flat_unit.h"

namespace praetor {

/// An optimizer whose state is spread over the ranks (ZeRO, arXiv:1910.02054): the parameters, end
/// to end, are cut into equal parts (FlatUnit), and each rank holds the state of its part and steps
/// it.
///
///   backward on every rank -> reduce_gradients -> clip_gradients -> step
///
/// Stage 1: all parameters are one unit, every rank holds all weights, and gradients of what it has
/// seen until the step. Stages 2 and 3: the units are those of a ShardedNetwork, whose backward has
/// summed the gradients already. Elements pass between ranks in buckets, so that beside weights and
/// gradients only one part of the gradient and some buckets are held. In a world of one it is the
/// optimizer on the parameters as they are. All calls but the plain getters, state and zero_grad
/// are made by every rank alike.
class ShardedOptimizer {
 public:
  static constexpr int64_t kBucketBytes = FlatUnit::kBucketBytes;

  /// The collectives of `ranks` must outlive it; the tensors of `parameters` are the model's own.
  /// @throws InvalidArgument as Optimizer does, and for parameters of two dtypes in a world above
  /// one
  ShardedOptimizer(std::string name,
                   std::vector<NamedTensor> parameters,
                   OptimizerConfig config,
                   ShardingRanks ranks,
                   int64_t bucket_bytes = kBucketBytes);
  /// Over units of a network, borrowed, whose gradients are summed in its backward; a world above
  /// one. @throws InvalidArgument as Optimizer does
  ShardedOptimizer(std::string name,
                   std::vector<FlatUnit*> units,
                   OptimizerConfig config,
                   ShardingRanks ranks);

  /// Each rank of `group`, borrowed, steps its part of the parameters, but for those of the names
  /// in `everywhere`, which all of them have, with equal gradients.
  void split(Collective& group, std::set<std::string> everywhere);

  const std::string& name() const { return name_; }
  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  const OptimizerConfig& config() const { return optimizer_->config(); }
  int64_t steps() const { return optimizer_->steps(); }
  void set_steps(int64_t steps) { optimizer_->set_steps(steps); }

  /// Sums the gradients of all ranks, in rank order, into the owners' pieces, where the backward
  /// has not. A parameter has a gradient when it has one on any rank; the others count as zeros.
  /// The parameters' own are dropped.
  void reduce_gradients();
  /// Takes in the owned gradients, in order; the same on the ranks of every copy.
  void digest_gradients(Sha256& digest) const;
  /// Takes in the owned weights, in order.
  void digest_weights(Sha256& digest) const;
  /// Clips to config().max_grad_norm. @return the norm of all parts before it
  double clip_gradients();
  /// Steps the owned pieces and gathers the weights of the others, unless these stay in parts.
  void step(double learning_rate);
  /// Drops all gradients.
  void zero_grad();

  /// Optimizer::state, of pieces by their names (piece_name; 1-D unless whole). The tensors
  /// themselves.
  std::vector<NamedTensor> state() const { return optimizer_->state(); }
  std::vector<Optimizer::HeldState> held_state() const { return optimizer_->held_state(); }
  int64_t state_bytes() const { return optimizer_->state_bytes(); }

 private:
  bool alone() const { return ranks_.alone(); }
  /// Of all gradients together, of every rank of a copy.
  double square_sum() const;
  /// Over what the units give this rank.
  void make(OptimizerConfig config);

  std::string name_;
  std::vector<NamedTensor> parameters_;
  ShardingRanks ranks_;
  Collective* group_ = nullptr;                  ///< of ranks with other parts of the parameters
  std::set<std::string> everywhere_;             ///< parameters that all of it have
  std::unique_ptr<FlatUnit> own_unit_;           ///< stage 1
  std::vector<FlatUnit*> units_;                 ///< none in a world of one
  std::unique_ptr<Optimizer> optimizer_;         ///< over the owned pieces
  std::vector<std::vector<bool>> has_gradient_;  ///< of each unit's parameters, on any rank
};

}  // namespace praetor
