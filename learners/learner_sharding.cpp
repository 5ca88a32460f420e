// Which networks the ranks keep in parts, and how these are read.
#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "learners/learner_impl.h"
#include "learners/sharding/agreement.h"

namespace praetor {

void Learner::Impl::split_ranks() {
  const int64_t world = data->world_size(), group = config.sharding.ranks_of_copy(world);
  if (world % group != 0) {
    throw InvalidArgument(
        "sharding.group is ", group, ", which does not divide the ", world, " ranks");
  }
  if (group == world) return;
  groups = make_grid(*data, static_cast<int32_t>(group), "shards", "replicas");
}

void Learner::Impl::shard(const char* who, Transformer& model, ShardedNetwork::Options options) {
  options.cut = config.sharding.stage == 3;
  options.copy = copy_of(model);
  const bool wanted = options.cut || (options.trained && config.sharding.stage == 2);
  if (!wanted || !sharding_ranks().in_parts()) return;
  options.read = [this, who, &model](std::span<const NamedTensor> some) {
    const ModelWeights& weights = weights_of(model);
    weights.read(some);
    if (tensor) return;  // their parts are not the same ones
    if (first_readers.emplace(&weights, who).first->second != who) return;
    for (const NamedTensor& t : some) note_read(who, t);
  };
  sharded.push_back(std::make_unique<ShardedNetwork>(
      who, model, sharding_ranks(), lock_step, meter, std::move(options)));
}

void Learner::Impl::note_read(const char* who, const NamedTensor& whole) {
  std::string& digest = read_digests[str(who, "/", whole.name)];
  if (!digest.empty()) return;
  const at::Tensor values = whole.tensor.detach().cpu();
  digest = sha256_hex(
      std::span(static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()));
}

bool Learner::Impl::cuts_weights() const {
  return config.sharding.stage == 3 && config.sharding.ranks_of_copy(data->world_size()) > 1 &&
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
  if (!tensor) return;
  std::set<std::string> everywhere;
  for (const NamedTensor& parameter : optimizers.back()->parameters()) {
    if (place_of(parameter.tensor).part.everywhere()) everywhere.insert(parameter.name);
  }
  optimizers.back()->split(*grid.row, std::move(everywhere));
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
    settings.kernels = config.optimizer.kernels;
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
    const StatePlace place = place_of(weight.tensor);
    for (size_t i = 0; i < unit.owned().size(); ++i) {
      const FlatPiece& piece = unit.pieces()[i];
      if (unit.parameters()[piece.parameter].tensor.is_same(weight.tensor))
        out.push_back({.name = weight.name,
                       .begin = piece.begin,
                       .place = place,
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
                     .place = place_of(weight.tensor),
                     .tensor = weight.tensor,
                     .everywhere = true});
    }
  }
  return out;
}

std::shared_ptr<const void> Learner::gather_weights(const std::vector<const Transformer*>& models,
                                                    bool on_every_rank) const {
  const Impl& my = *impl_;
  if (my.on_device()) return my.gather_to_host(models, on_every_rank);
  const bool keep = on_every_rank || my.ranks->rank() == 0;
  // The ranks that share the layers with one that wants them bring theirs together; nobody reads
  // the other copies.
  const bool helps = on_every_rank || my.data->rank() == 0;
  const bool gathers = on_every_rank || my.sharding_ranks().copy() == 0;
  std::vector<ShardedNetwork*> networks;
  std::vector<SplitModel*> splits;
  std::vector<Impl::Merged*> in_parts;
  for (const Transformer* model : models) {
    if (!model) continue;
    Impl::Merged* const one = my.merged_of(*model);
    const Transformer& base = one ? *one->base : *model;
    SplitModel* const split = my.split_of(base);
    ShardedNetwork* const network = my.sharding_of(split ? split->part() : base);
    const bool cut = network && network->is_cut();
    // A policy and a reference may be one network.
    if (cut && std::ranges::find(networks, network) == networks.end()) {
      networks.push_back(network);
      if (gathers) network->gather(helps);
    }
    if (split && std::ranges::find(splits, split) == splits.end()) {
      splits.push_back(split);
      for (size_t i = 0; helps && i < split->part().parameters().size(); ++i)
        split->gather(i, keep);
    }
    if (one && keep) my.merge(*one);
    if (one && (cut || split)) in_parts.push_back(one);
  }
  return {static_cast<const void*>(this), [networks, splits, in_parts](const void*) {
            for (Impl::Merged* one : in_parts) {
              *one->model = shared_copy(*one->base);
              one->version = 0;
            }
            for (SplitModel* split : splits) {
              for (size_t i = 0; i < split->part().parameters().size(); ++i) split->release(i);
            }
            for (ShardedNetwork* network : networks) network->release();
          }};
}

namespace {

/// A tensor that is to be visited, and where it comes from.
struct Visited {
  NamedTensor tensor;
  SplitModel* split = nullptr;  ///< null: every rank has it
  size_t index = 0;             ///< of the parameter of `split`
  /// What this rank holds of it.
  const at::Tensor& own() const {
    return split ? split->part().parameters()[index].tensor : tensor.tensor;
  }
};

/// Hands tensors to `visit`, once they are together.
class Visitor {
 public:
  Visitor(const std::function<void(std::span<const NamedTensor>)>& visit, bool reads, bool helps)
      : visit_(visit), reads_(reads), helps_(helps) {}

  void operator()(const std::vector<Visited>& some) {
    if (some.empty()) return;
    std::vector<NamedTensor> tensors;
    for (const Visited& one : some) {
      if (one.split && helps_) one.split->gather(one.index, reads_);
      tensors.push_back(one.tensor);
    }
    try {
      if (reads_ && !failure_) visit_(tensors);
    } catch (...) {
      failure_ = std::current_exception();  // the other ranks go on with what is left
    }
    for (const Visited& one : some) {
      if (one.split) one.split->release(one.index);
    }
  }
  void finish() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  const std::function<void(std::span<const NamedTensor>)>& visit_;
  bool reads_, helps_;
  std::exception_ptr failure_;
};

}  // namespace

void Learner::visit_weights(const std::vector<NamedTensor>& tensors,
                            const std::function<void(std::span<const NamedTensor>)>& visit) const {
  const Impl& my = *impl_;
  if (my.on_device()) return my.visit_on_host(tensors, visit);
  const bool helps = my.data->rank() == 0;
  Visitor hand_over(visit, my.ranks->rank() == 0, helps);
  std::vector<Visited> left;
  for (const NamedTensor& tensor : tensors) {
    left.push_back({tensor});
    for (const auto& split : my.split_models) {
      const auto& whole = split->whole().parameters();
      const auto found = std::ranges::find_if(
          whole, [&](const NamedTensor& p) { return p.tensor.is_same(tensor.tensor); });
      if (found == whole.end()) continue;
      left.back().split = split.get();
      left.back().index = static_cast<size_t>(found - whole.begin());
    }
  }
  for (const auto& network : my.sharded) {
    if (!network->is_cut() || my.sharding_ranks().copy() > 0) continue;
    for (FlatUnit* unit : network->units()) {
      const auto of_unit = std::stable_partition(left.begin(), left.end(), [&](const Visited& one) {
        return std::ranges::none_of(
            unit->parameters(), [&](const NamedTensor& p) { return p.tensor.is_same(one.own()); });
      });
      const std::vector<Visited> some(of_unit, left.end());
      left.erase(of_unit, left.end());
      if (some.empty()) continue;
      unit->gather(helps);
      hand_over(some);
      unit->release();
    }
  }
  const auto whole = std::stable_partition(
      left.begin(), left.end(), [](const Visited& one) { return one.split != nullptr; });
  for (auto one = left.begin(); one != whole; ++one) hand_over({*one});
  hand_over(std::vector<Visited>(whole, left.end()));
  hand_over.finish();
}

int32_t Learner::state_shards() const {
  const auto tensor = static_cast<int32_t>(impl_->config.sharding.tensor);
  return impl_->sharding_ranks().shards->world_size() * tensor;
}

bool Learner::in_parts() const {
  return impl_->tensor ||
         std::ranges::any_of(impl_->sharded, [](const auto& one) { return one->is_cut(); });
}

const UnitMeter& Learner::unit_meter() const {
  return impl_->meter;
}

}  // namespace praetor
