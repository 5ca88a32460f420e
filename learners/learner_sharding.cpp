// Which networks the ranks keep in parts, and how these are read.
#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "learners/learner_impl.h"

namespace praetor {

void Learner::Impl::shard(const char* who, Transformer& model, ShardedNetwork::Options options) {
  options.cut = config.sharding.stage == 3;
  options.copy = copy_of(model);
  const bool wanted = options.cut || (options.trained && config.sharding.stage == 2);
  if (wanted && ranks->world_size() > 1) {
    sharded.push_back(
        std::make_unique<ShardedNetwork>(who, model, *ranks, lock_step, meter, std::move(options)));
  }
}

void Learner::Impl::shard_networks() {
  if (plan.policy) {
    ShardedNetwork::Options policy{.trained = true};
    if (plan.critic == CriticKind::kShared)
      policy.scalar_head.push_back({"score.weight", models.value_head->weight});
    shard("policy", *models.policy, std::move(policy));
  }
  if (plan.reference) shard("reference", *models.reference, {});
  if (plan.anchor) shard("anchor", *models.anchor, {});
  if (plan.critic == CriticKind::kSeparate || plan.reward_model) {
    shard(plan.reward_model ? "reward model" : "critic",
          models.scalar->backbone,
          {.trained = !plan.gate,
           .language_head = false,
           .scalar_head = {{"score.weight", models.scalar->head.weight}}});
  }
}

void Learner::Impl::add_optimizer(const char* name,
                                  std::vector<NamedTensor> parameters,
                                  const Transformer* model,
                                  OptimizerConfig settings) {
  settings.seed = config.seed;
  settings.stage = config.stage;
  if (const ShardedNetwork* network = model ? sharding_of(*model) : nullptr) {
    optimizers.push_back(
        std::make_unique<ShardedOptimizer>(name, network->units(), std::move(settings), *ranks));
  } else {
    optimizers.push_back(std::make_unique<ShardedOptimizer>(
        name, std::move(parameters), std::move(settings), *ranks));
  }
}

void Learner::Impl::add_optimizers() {
  if (plan.gate) {
    // A gate is small: its optimizer sums all of it at the step, whatever the stage.
    add_optimizer("gate", models.gate->parameters(), nullptr, config.optimizer);
  } else if (plan.reward_model) {
    add_optimizer(
        "reward_model", models.scalar->parameters(), &models.scalar->backbone, config.optimizer);
  } else {
    std::vector<NamedTensor> trained = models.policy->parameters();
    if (plan.critic == CriticKind::kShared)
      trained.push_back({"score.weight", models.value_head->weight});
    add_optimizer("policy", std::move(trained), models.policy.get(), config.optimizer);
  }
  if (plan.critic == CriticKind::kSeparate) {
    OptimizerConfig settings = plan.critic_optimizer;
    settings.schedule.total_steps = config.optimizer.schedule.total_steps;
    add_optimizer("critic", models.scalar->parameters(), &models.scalar->backbone, settings);
  }
  for (const auto& one : optimizers) {
    for (const NamedTensor& parameter : one->parameters()) parameter.tensor.set_requires_grad(true);
  }
  for (const auto& copy : copies) copy->train();
}

ShardedNetwork* Learner::Impl::sharding_of(const Transformer& model) const {
  const auto found =
      std::ranges::find_if(sharded, [&](const auto& one) { return &one->model() == &model; });
  return found == sharded.end() ? nullptr : found->get();
}

std::vector<NamedTensor> Learner::Impl::held(const Transformer& model) const {
  const ShardedNetwork* network = sharding_of(model);
  if (!network || !network->is_cut()) return model.parameters();
  std::vector<NamedTensor> out;
  for (const FlatUnit* unit : network->units())
    out.insert(out.end(), unit->owned().begin(), unit->owned().end());
  return out;
}

std::vector<Learner::Impl::HeldPiece> Learner::Impl::held_weights() const {
  std::vector<HeldPiece> out;
  const auto add_pieces = [&](const FlatUnit& unit, const NamedTensor& weight) {
    for (size_t i = 0; i < unit.owned().size(); ++i) {
      const FlatPiece& piece = unit.pieces()[i];
      if (unit.parameters()[piece.parameter].tensor.is_same(weight.tensor))
        out.push_back({.name = weight.name,
                       .begin = piece.begin,
                       .whole = weight.tensor.numel(),
                       .tensor = unit.owned()[i].tensor});
    }
  };
  for (const NamedTensor& weight : weights()) {
    const FlatUnit* place = nullptr;
    for (const auto& network : sharded) {
      for (const FlatUnit* unit : network->units()) {
        const bool here = std::ranges::any_of(unit->parameters(), [&](const NamedTensor& p) {
          return p.tensor.is_same(weight.tensor);
        });
        if (here && unit->is_cut()) place = unit;
      }
    }
    if (place) {
      add_pieces(*place, weight);
    } else {
      out.push_back({.name = weight.name,
                     .whole = weight.tensor.numel(),
                     .tensor = weight.tensor,
                     .everywhere = true});
    }
  }
  return out;
}

std::shared_ptr<const void> Learner::gather_weights(const std::vector<const Transformer*>& models,
                                                    bool on_every_rank) const {
  std::vector<ShardedNetwork*> networks;
  for (const Transformer* model : models) {
    ShardedNetwork* network = model ? impl_->sharding_of(*model) : nullptr;
    if (network && network->is_cut()) networks.push_back(network);
  }
  for (ShardedNetwork* network : networks)
    network->gather(on_every_rank || impl_->ranks->rank() == 0);
  return {static_cast<const void*>(this), [networks](const void*) {
            for (ShardedNetwork* network : networks) network->release();
          }};
}

const UnitMeter& Learner::unit_meter() const {
  return impl_->meter;
}

}  // namespace praetor
