#include "learners/sharding/sharded_optimizer.h"

#include <cmath>
#include <cstddef>
#include <span>
#include <utility>

#include "core/base/error.h"
#include "learners/optim/clip_grad.h"
#include "learners/optim/tensor_digest.h"
#include "learners/sharding/flat_layout.h"

namespace praetor {
namespace {

template <typename Get>
std::vector<NamedTensor> joined(const std::vector<FlatUnit*>& units, Get get) {
  std::vector<NamedTensor> out;
  for (const FlatUnit* unit : units) {
    const std::vector<NamedTensor>& part = get(*unit);
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

/// Every rank's number.
std::vector<double> values_of(Collective& ranks, double mine) {
  std::vector<double> out(static_cast<size_t>(ranks.world_size()));
  ranks.all_gather<double>(std::span(&mine, 1), out);
  return out;
}

/// Their sum, in rank order.
double total_of(Collective& ranks, double mine) {
  double out = 0;
  for (const double one : values_of(ranks, mine)) out += one;
  return out;
}

}  // namespace

ShardedOptimizer::ShardedOptimizer(std::string name,
                                   std::vector<NamedTensor> parameters,
                                   OptimizerConfig config,
                                   ShardingRanks ranks,
                                   int64_t bucket_bytes)
    : name_(std::move(name)), parameters_(std::move(parameters)), ranks_(ranks) {
  if (alone()) {
    optimizer_ = make_optimizer({.name = name_, .parameters = parameters_, .owned = parameters_},
                                std::move(config));
    return;
  }
  own_unit_ =
      std::make_unique<FlatUnit>("optimizer of the " + name_, parameters_, ranks_, 1, bucket_bytes);
  units_ = {own_unit_.get()};
  make(std::move(config));
}

ShardedOptimizer::ShardedOptimizer(std::string name,
                                   std::vector<FlatUnit*> units,
                                   OptimizerConfig config,
                                   ShardingRanks ranks)
    : name_(std::move(name)),
      parameters_(joined(
          units, [](const FlatUnit& unit) -> const auto& { return unit.parameters(); })),
      ranks_(ranks),
      units_(std::move(units)) {
  PRAETOR_CHECK(!alone(), "units are for several ranks");
  make(std::move(config));
}

void ShardedOptimizer::make(OptimizerConfig config) {
  optimizer_ =
      make_optimizer({.name = name_,
                      .parameters = parameters_,
                      .owned = joined(
                          units_, [](const FlatUnit& unit) -> const auto& { return unit.owned(); }),
                      .ranks = ranks_.shards},
                     std::move(config));
}

void ShardedOptimizer::reduce_gradients() {
  if (alone() || parameters_.empty()) return;
  if (own_unit_) own_unit_->add_gradients();
  for (FlatUnit* unit : units_) unit->add_over_copies();
  std::vector<std::byte> mine;
  for (const FlatUnit* unit : units_) {
    for (const bool seen : unit->seen()) mine.push_back(std::byte(seen));
  }
  std::vector<std::byte> all(mine.size() * static_cast<size_t>(ranks_.all->world_size()));
  ranks_.all->all_gather<std::byte>(mine, all);
  has_gradient_.clear();
  size_t at = 0;
  for (FlatUnit* unit : units_) {
    std::vector<bool> any(unit->parameters().size(), false);
    for (size_t i = 0; i < any.size(); ++i, ++at) {
      for (size_t k = at; k < all.size(); k += mine.size())
        any[i] = any[i] || all[k] != std::byte{0};
    }
    unit->hand_over(any);
    has_gradient_.push_back(std::move(any));
  }
}

void ShardedOptimizer::digest_gradients(Sha256& digest) const {
  for (const NamedTensor& parameter : optimizer_->parameters()) {
    if (!parameter.tensor.grad().defined()) continue;
    add_to_digest(digest, parameter.tensor.grad());
  }
}

void ShardedOptimizer::split(Collective& group, std::set<std::string> everywhere) {
  group_ = &group;
  everywhere_ = std::move(everywhere);
}

double ShardedOptimizer::square_sum() const {
  if (!group_) return total_of(*ranks_.shards, grad_square_sum(optimizer_->parameters()));
  std::vector<NamedTensor> own, common;
  for (const NamedTensor& piece : optimizer_->parameters()) {
    const bool all = everywhere_.contains(split_piece_name(piece.name).parameter);
    (all ? common : own).push_back(piece);
  }
  // What all have counts once: as the first rank says, whose pieces may lie otherwise than here, so
  // that all clip by the same number.
  const double once = total_of(*ranks_.shards, grad_square_sum(common));
  return total_of(*group_, total_of(*ranks_.shards, grad_square_sum(own))) +
         values_of(*group_, once)[0];
}

void ShardedOptimizer::digest_weights(Sha256& digest) const {
  for (const NamedTensor& parameter : optimizer_->parameters())
    add_to_digest(digest, parameter.tensor);
}

double ShardedOptimizer::clip_gradients() {
  const double norm = std::sqrt(square_sum());
  scale_gradients(optimizer_->parameters(), norm, config().max_grad_norm);
  return norm;
}

void ShardedOptimizer::step(double learning_rate) {
  optimizer_->step(learning_rate);
  for (size_t u = 0; u < units_.size(); ++u) {
    if (!units_[u]->is_cut()) units_[u]->share_weights();
    // Caches made from weights that another rank has stepped are old, too.
    if (!has_gradient_.empty()) units_[u]->bump_versions(has_gradient_[u]);
  }
}

void ShardedOptimizer::zero_grad() {
  optimizer_->zero_grad();
  for (FlatUnit* unit : units_) unit->drop_gradients();
}

}  // namespace praetor
