// What a learner starts from, and what a resumed run needs of it.
#include <ATen/core/grad_mode.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "learners/learner_impl.h"
#include "learners/lora_config.h"
#include "learners/sharding/agreement.h"
#include "learners/sharding/flat_layout.h"
#include "learners/sharding/shard_state.h"

namespace praetor {
namespace {

void add(std::vector<NamedTensor>& out,
         const std::string& prefix,
         const std::vector<NamedTensor>& tensors) {
  for (const NamedTensor& t : tensors) out.push_back({prefix + t.name, t.tensor});
}

/// Pieces of flattened tensors are flat.
void add_piece(std::vector<NamedTensor>& out, std::string name, const at::Tensor& tensor) {
  const bool flat = split_piece_name(name).range.has_value();
  out.push_back({std::move(name), flat ? tensor.detach().view(-1) : tensor});
}

std::string optimizer_prefix(const ShardedOptimizer& optimizer) {
  return "optimizer/" + optimizer.name() + "/";
}

/// States of another kind of optimizer lack tensors: this says why. States from before there were
/// kinds are of adamw.
void require_kinds(const std::string& json,
                   const std::vector<std::unique_ptr<ShardedOptimizer>>& optimizers) {
  const auto state = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!state.is_object()) return;  // said when the rest of it is read
  const auto kinds = state.value("optimizer_kinds", nlohmann::json::object());
  for (const auto& one : optimizers) {
    const std::string kind = kinds.value(one->name(), "adamw");
    if (kind == one->config().kind) continue;
    throw CheckpointError("learner state: the optimizer of its ",
                          one->name(),
                          " is ",
                          kind,
                          ", but this job's is ",
                          one->config().kind,
                          " (optimizer.kind)");
  }
}

}  // namespace

std::vector<NamedTensor> Learner::Impl::weights() const {
  std::vector<NamedTensor> out;
  if (plan.policy) add(out, "policy/", trained_parameters(policy_net()));
  if (plan.gate) {
    add(out, "gate/", models.gate->parameters());
  } else if (plan.probe) {
    add(out, "reward_model/", {{"score.weight", models.scalar->head.weight}});
  } else if (plan.reward_model) {
    add(out, "reward_model/", trained_scalar_parameters());
  }
  if (plan.critic == CriticKind::kSeparate) add(out, "critic/", trained_scalar_parameters());
  if (plan.critic == CriticKind::kShared)
    add(out, "value_head/", {{"score.weight", models.value_head->weight}});
  if (plan.anchor) add(out, "anchor/", trained_parameters(anchor_net()));
  return out;
}

std::vector<NamedTensor> Learner::Impl::networks() const {
  std::vector<NamedTensor> out = weights();
  if (plan.reference && models.reference) add(out, "reference/", models.reference->parameters());
  if (adapter && models.policy) add(out, "policy/", models.policy->parameters());
  if (adapter && models.scalar) add(out, "scalar/", models.scalar->backbone.parameters());
  if (plan.gate || plan.probe) add(out, "reward_model/", models.scalar->parameters());
  if (plan.gate) add(out, "gate/", {{"correction", models.gate->correction}});
  return out;
}

std::vector<Learner::Impl::HeldMoment> Learner::Impl::held_moments(
    const ShardedOptimizer& optimizer) const {
  std::map<std::string, StatePlace> by_name;
  for (const NamedTensor& p : optimizer.parameters()) by_name[p.name] = place_of(p.tensor);
  std::vector<HeldMoment> out;
  for (const Optimizer::HeldState& held : optimizer.held_state()) {
    // What is not cut as the parameter is has its own form.
    const std::string parameter = held.name.substr(held.name.find('/') + 1);
    out.push_back(
        {.name = held.name,
         .begin = held.begin,
         .place = held.everywhere ? StatePlace{.sizes = {held.whole}} : by_name.at(parameter),
         .tensor = held.tensor,
         .everywhere = held.everywhere});
  }
  return out;
}

void Learner::Impl::require_equal_start() const {
  if (ranks->world_size() == 1) return;
  const std::vector<std::string> all = gather_agreed(*ranks, [&] {
    nlohmann::json start;
    start["algorithm"] = algorithm->name();
    start["algorithm's state"] = algorithm->state_json();
    start["seed"] = config.seed;
    start["stage"] = config.stage;
    start["micro_batch_tokens"] = config.micro_batch_tokens;
    start["temperature"] = config.temperature;
    start["exact_rollouts"] = config.exact_rollouts;
    start["precision"] = c10::toString(config.precision);
    start["device"] = c10::DeviceTypeName(config.device.type());
    start["sharding stage"] = config.sharding.stage;
    start["sharding prefetch"] = config.sharding.prefetch;
    start["sharding tensor"] = config.sharding.tensor;
    start["sharding group"] = config.sharding.group;
    start["lora"] = config.lora ? lora_to_json(*config.lora) : "";
    start["learning_rate"] = config.optimizer.learning_rate;
    start["optimizer"] = config.optimizer.kind;
    start["state_dtype"] = c10::toString(config.optimizer.state_dtype);
    for (const NamedTensor& t : networks()) {
      if (is_waiting(t.tensor)) continue;
      const at::Tensor values = t.tensor.detach().cpu().contiguous();
      Sha256 digest;
      digest.update(praetor::str(values.scalar_type(), values.sizes()));
      digest.update(
          std::span(static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()));
      start[t.name] = digest.hex();
    }
    return start.dump();
  });
  require_equal(all);
}

void Learner::Impl::require_equal(const std::vector<std::string>& all) {
  for (size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    const auto first = nlohmann::json::parse(all[0]), other = nlohmann::json::parse(all[rank]);
    for (const auto& difference : nlohmann::json::diff(first, other)) {
      const nlohmann::json::json_pointer path(difference.at("path").get<std::string>());
      throw InvalidArgument(
          "rank ", rank, " does not start from what rank 0 starts from: ", path.back(), " differs");
    }
  }
}

std::vector<NamedTensor> Learner::state() const {
  const Impl& my = *impl_;
  std::vector<NamedTensor> out;
  if (my.sharding_ranks().copy() > 0) return out;
  for (const Impl::HeldPiece& piece : my.held_weights()) {
    if ((piece.everywhere && my.data->rank() > 0) || !my.speaks_for(piece.place)) continue;
    const int64_t end = piece.begin + piece.tensor.numel();
    add_piece(out, piece.place.name(piece.name, piece.begin, end), piece.tensor);
  }
  for (const auto& one : my.optimizers) {
    for (const Impl::HeldMoment& held : my.held_moments(*one)) {
      if ((held.everywhere && my.data->rank() > 0) || !my.speaks_for(held.place)) continue;
      const int64_t end = held.begin + held.tensor.numel();
      add_piece(
          out, optimizer_prefix(*one) + held.place.name(held.name, held.begin, end), held.tensor);
    }
  }
  return out;
}

std::string Learner::state_json() const {
  nlohmann::json steps, kinds;
  for (const auto& one : impl_->optimizers) {
    steps[one->name()] = one->steps();
    kinds[one->name()] = one->config().kind;
  }
  nlohmann::json out{{"algorithm", impl_->algorithm->name()},
                     {"step", impl_->updates},
                     {"optimizer_steps", steps},
                     {"optimizer_kinds", kinds},
                     {"state", nlohmann::json::parse(impl_->algorithm->state_json())}};
  if (impl_->config.lora) out["lora"] = nlohmann::json::parse(lora_to_json(*impl_->config.lora));
  return out.dump();
}

void Learner::load_state(const std::vector<NamedTensor>& tensors, const std::string& json) {
  load_state(*make_tensor_source(tensors), json);
}

void Learner::load_state(const TensorSource& tensors, const std::string& json) {
  Impl& my = *impl_;
  int64_t step = 0;
  std::vector<int64_t> optimizer_steps;
  std::string algorithm_state;
  std::optional<ShardState> given;
  run_agreed(*my.ranks, [&] {
    require_kinds(json, my.optimizers);
    given.emplace(tensors);
    for (const NamedTensor& t : my.weights())
      given->require(t.name, my.place_of(t.tensor).sizes, t.tensor.scalar_type());
    for (const auto& one : my.optimizers) {
      for (const NamedTensor& p : one->parameters()) {
        const std::vector<int64_t> sizes = my.place_of(p.tensor).sizes;
        const auto kept = state_of(one->config(), sizes, p.tensor.scalar_type());
        for (const StateSpec& spec : kept)
          given->require(optimizer_prefix(*one) + spec.name + "/" + p.name,
                         spec.sizes,
                         spec.dtype,
                         ShardState::Types::kFloat32OrBfloat16);
      }
    }
    given->require_no_more();
    try {
      const auto state = nlohmann::json::parse(json);
      if (state.at("algorithm").get<std::string>() != my.algorithm->name()) {
        throw CheckpointError("learner state: it is of algorithm ",
                              state.at("algorithm").get<std::string>(),
                              ", but this job's is ",
                              my.algorithm->name());
      }
      const std::string lora = my.config.lora ? lora_to_json(*my.config.lora) : "none";
      if (const std::string found = state.contains("lora") ? state["lora"].dump() : "none";
          found != lora) {
        throw CheckpointError(
            "learner state: lora is ", found, " in it, but ", lora, " in this job");
      }
      step = state.at("step").get<int64_t>();
      for (const auto& one : my.optimizers) {
        optimizer_steps.push_back(state.at("optimizer_steps").at(one->name()).get<int64_t>());
      }
      algorithm_state = state.at("state").dump();
    } catch (const nlohmann::json::exception& error) {
      throw CheckpointError("learner state: ", error.what());
    }
  });
  // Throws before it changes anything; the rest cannot fail.
  run_agreed(*my.ranks, [&] { my.algorithm->load_state_json(algorithm_state); });

  const at::NoGradGuard no_grad;
  for (const Impl::HeldPiece& piece : my.held_weights()) {
    const int64_t end = piece.begin + piece.tensor.numel();
    given->copy(piece.name, piece.place.range(piece.begin, end), piece.tensor.detach());
  }
  for (size_t i = 0; i < my.optimizers.size(); ++i) {
    ShardedOptimizer& one = *my.optimizers[i];
    for (const Impl::HeldMoment& held : my.held_moments(one)) {
      const int64_t end = held.begin + held.tensor.numel();
      given->copy(
          optimizer_prefix(one) + held.name, held.place.range(held.begin, end), held.tensor);
    }
    one.set_steps(optimizer_steps[i]);
  }
  ++my.adapter_version;
  my.refresh_trained_copies();
  if (my.models.anchor) my.refresh_copy(*my.models.anchor);
  my.updates = step;
}

}  // namespace praetor
