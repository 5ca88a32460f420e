// Which networks the ranks keep in parts, and how these are read.
#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "learners/learner_impl.h"
#include "learners/sharding/agreement.h"

namespace praetor {

void Learner::Impl::split_ranks() {
  const int64_t world = ranks->world_size(), group = config.sharding.ranks_of_copy(world);
  if (world % group != 0) {
    throw InvalidArgument(
        "sharding.group is ", group, ", which does not divide the ", world, " ranks");
  }
  if (group == world) return;
  groups = make_grid(*ranks, static_cast<int32_t>(group), "shards", "replicas");
}

void Learner::Impl::shard(const char* who, Transformer& model, ShardedNetwork::Options options) {
  options.cut = config.sharding.stage == 3;
  options.copy = copy_of(model);
  const bool wanted = options.cut || (options.trained && config.sharding.stage == 2);
  if (!wanted || !sharding_ranks().in_parts()) return;
  options.read = [this, who, &model](std::span<const NamedTensor> some) {
    const ModelWeights& weights = weights_of(model);
    weights.read(some);
    if (first_readers.emplace(&weights, who).first->second != who) return;
    for (const NamedTensor& t : some) {
      read_digests[str(who, "/", t.name)] = sha256_hex(
          std::span(static_cast<const std::byte*>(t.tensor.const_data_ptr()), t.tensor.nbytes()));
    }
  };
  sharded.push_back(std::make_unique<ShardedNetwork>(
      who, model, sharding_ranks(), lock_step, meter, std::move(options)));
}

bool Learner::Impl::cuts_weights() const {
  return config.sharding.stage == 3 && config.sharding.ranks_of_copy(ranks->world_size()) > 1 &&
         !plan.probe;
}

const ModelWeights& Learner::Impl::weights_of(const Transformer& model) const {
  const bool scalar = models.scalar && &model == &models.scalar->backbone;
  const auto& out = scalar && models.scalar_weights ? models.scalar_weights : models.policy_weights;
  PRAETOR_CHECK(out, "a network without weights, and nothing to read them from");
  return *out;
}

void Learner::Impl::read_networks() {
  if (cuts_weights()) return;
  run_agreed(*ranks, [&] {
    for (const Transformer* model : {models.policy.get(),
                                     models.reference.get(),
                                     models.anchor.get(),
                                     models.scalar ? &models.scalar->backbone : nullptr}) {
      if (model && is_waiting(model->parameters().front().tensor))
        read_whole(weights_of(*model), *model);
    }
  });
}

void Learner::Impl::shard_networks() {
  require_equal(gather_agreed(*ranks, [&] {
    shard_all();
    return nlohmann::json(read_digests).dump();
  }));
  first_readers.clear();
  read_digests.clear();
}

void Learner::Impl::shard_all() {
  lock_step.set_prefetch(config.sharding.prefetch);
  if (plan.policy) {
    ShardedNetwork::Options policy{.trained = !adapter, .passed = adapter != nullptr};
    if (plan.critic == CriticKind::kShared && !adapter)
      policy.scalar_head.push_back({"score.weight", models.value_head->weight});
    shard("policy", *models.policy, std::move(policy));
  }
  if (models.reference && plan.reference) shard("reference", *models.reference, {});
  if (models.anchor && plan.anchor) shard("anchor", *models.anchor, {});
  if (plan.critic == CriticKind::kSeparate || plan.reward_model) {
    // A head that is trained beside an adapter stays whole, as that does.
    const bool adapted = scalar_net().adapter != nullptr;
    ShardedNetwork::Options scalar{
        .trained = !plan.gate && !adapted, .passed = adapted, .language_head = false};
    if (!adapted) scalar.scalar_head = {{"score.weight", models.scalar->head.weight}};
    shard(
        plan.reward_model ? "reward model" : "critic", models.scalar->backbone, std::move(scalar));
  }
}

void Learner::Impl::add_optimizer(const char* name,
                                  std::vector<NamedTensor> parameters,
                                  const Transformer* model,
                                  OptimizerConfig settings) {
  settings.seed = config.seed;
  settings.stage = config.stage;
  if (const ShardedNetwork* network = model ? sharding_of(*model) : nullptr) {
    optimizers.push_back(std::make_unique<ShardedOptimizer>(
        name, network->units(), std::move(settings), sharding_ranks()));
  } else {
    optimizers.push_back(std::make_unique<ShardedOptimizer>(
        name, std::move(parameters), std::move(settings), sharding_ranks()));
  }
}

void Learner::Impl::add_optimizers() {
  // Adapters are small, too: they and their gradients are whole on every rank.
  const Transformer* const scalar_place =
      models.scalar && !scalar_net().adapter ? &models.scalar->backbone : nullptr;
  if (plan.gate) {
    // A gate is small: its optimizer sums all of it at the step, whatever the stage.
    add_optimizer("gate", models.gate->parameters(), nullptr, config.optimizer);
  } else if (plan.reward_model) {
    add_optimizer("reward_model", trained_scalar_parameters(), scalar_place, config.optimizer);
  } else {
    std::vector<NamedTensor> trained = trained_parameters(policy_net());
    if (plan.critic == CriticKind::kShared)
      trained.push_back({"score.weight", models.value_head->weight});
    add_optimizer(
        "policy", std::move(trained), adapter ? nullptr : models.policy.get(), config.optimizer);
  }
  if (plan.critic == CriticKind::kSeparate) {
    OptimizerConfig settings = plan.critic_optimizer;
    settings.schedule.total_steps = config.optimizer.schedule.total_steps;
    add_optimizer("critic", trained_scalar_parameters(), scalar_place, settings);
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
  const bool keep = on_every_rank || impl_->ranks->rank() == 0;
  // Nobody reads the other copies.
  const bool gathers = on_every_rank || impl_->sharding_ranks().copy() == 0;
  std::vector<ShardedNetwork*> networks;
  std::vector<Impl::Merged*> in_parts;
  for (const Transformer* model : models) {
    if (!model) continue;
    Impl::Merged* const one = impl_->merged_of(*model);
    ShardedNetwork* const network = impl_->sharding_of(one ? *one->base : *model);
    const bool cut = network && network->is_cut();
    // A policy and a reference may be one network.
    if (cut && std::ranges::find(networks, network) == networks.end()) {
      networks.push_back(network);
      if (gathers) network->gather(keep);
    }
    if (one && keep) impl_->merge(*one);
    if (one && cut) in_parts.push_back(one);
  }
  return {static_cast<const void*>(this), [networks, in_parts](const void*) {
            for (Impl::Merged* one : in_parts) {
              *one->model = shared_copy(*one->base);
              one->version = 0;
            }
            for (ShardedNetwork* network : networks) network->release();
          }};
}

void Learner::visit_weights(const std::vector<NamedTensor>& tensors,
                            const std::function<void(std::span<const NamedTensor>)>& visit) const {
  const bool reads = impl_->ranks->rank() == 0;
  const bool gathers = impl_->sharding_ranks().copy() == 0;
  std::exception_ptr failure;
  const auto hand_over = [&](const std::vector<NamedTensor>& some) {
    if (!reads || some.empty() || failure) return;
    try {
      visit(some);
    } catch (...) {
      failure = std::current_exception();  // the other ranks go on with the units that are left
    }
  };
  std::vector<bool> in_parts(tensors.size(), false);
  const auto of_unit = [&](const FlatUnit& unit) {
    std::vector<NamedTensor> out;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const bool here = std::ranges::any_of(unit.parameters(), [&](const NamedTensor& p) {
        return p.tensor.is_same(tensors[i].tensor);
      });
      if (!here) continue;
      in_parts[i] = true;
      out.push_back(tensors[i]);
    }
    return out;
  };
  for (const auto& network : impl_->sharded) {
    if (!network->is_cut() || !gathers) continue;
    for (FlatUnit* unit : network->units()) {
      const std::vector<NamedTensor> some = of_unit(*unit);
      if (some.empty()) continue;
      unit->gather(reads);
      hand_over(some);
      unit->release();
    }
  }
  std::vector<NamedTensor> rest;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!in_parts[i]) rest.push_back(tensors[i]);
  }
  hand_over(rest);
  if (failure) std::rethrow_exception(failure);
}

int32_t Learner::state_shards() const {
  return impl_->sharding_ranks().shards->world_size();
}

bool Learner::in_parts() const {
  return std::ranges::any_of(impl_->sharded, [](const auto& one) { return one->is_cut(); });
}

const UnitMeter& Learner::unit_meter() const {
  return impl_->meter;
}

}  // namespace praetor
