// Networks whose layers are split over neighbouring ranks.
#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/base/str.h"
#include "core/collective/grid.h"
#include "learners/learner_impl.h"
#include "learners/sharding/agreement.h"

namespace praetor {

void Learner::Impl::join_tensor_group() {
  data = ranks;
  const int64_t width = config.sharding.tensor;
  if (width == 1) return;
  if (width < 1 || ranks->world_size() % width != 0) {
    throw InvalidArgument("sharding.tensor is ",
                          width,
                          ", but must divide the ",
                          ranks->world_size(),
                          ranks->world_size() == 1 ? " learner rank" : " learner ranks");
  }
  if (config.exact_rollouts)
    throw InvalidArgument("exact_rollouts: an engine's sums are not those over tensor ranks");
  const bool matrices =
      plan.critic == CriticKind::kSeparate && plan.critic_optimizer.kind == "adafactor";
  if (config.optimizer.kind == "adafactor" || matrices) {
    throw InvalidArgument(
        "optimizer.kind: adafactor keeps sums over whole rows and columns of matrices, which "
        "sharding.tensor splits; adamw or sgd is wanted");
  }
  const auto require = [&](const char* who, const Transformer* model) {
    if (!model) return;
    if (const auto wrong = wrong_tensor_ranks(model->config(), width))
      throw InvalidArgument("sharding.tensor: the ", who, ": ", *wrong);
  };
  require("policy", models.policy.get());
  require(plan.reward_model ? "reward model" : "critic",
          models.scalar ? &models.scalar->backbone : nullptr);
  require("reference", models.reference.get());
  require("anchor", models.anchor.get());
  grid = make_grid(*ranks, static_cast<int32_t>(width), "tensor", "data");
  data = grid.column.get();
  tensor.emplace(*grid.row);
}

void Learner::Impl::split(Transformer& model) {
  split_models.push_back(std::make_unique<SplitModel>(model, *tensor));
  const SplitModel& made = *split_models.back();
  for (size_t i = 0; i < model.parameters().size(); ++i) {
    if (made.place(i).everywhere()) continue;
    const std::vector<int64_t> sizes = made.whole().parameters()[i].tensor.sizes().vec();
    places[model.parameters()[i].tensor.unsafeGetTensorImpl()] = {sizes, made.place(i)};
  }
}

void Learner::Impl::split_networks() {
  if (!tensor) return;
  for (Transformer* model : {models.policy.get(), models.reference.get(), models.anchor.get()})
    if (model) split(*model);
  if (models.scalar) split(models.scalar->backbone);
  for (Merged& one : merged) {
    one.base = &whole(*one.base);
    *one.model = shared_copy(*one.base);
  }
  const auto in_part = [&](const char* who, std::shared_ptr<const ModelWeights>& weights) {
    if (weights)
      weights = part_weights(std::move(weights), *tensor, [this, who](const NamedTensor& all) {
        note_read(who, all);
      });
  };
  in_part("policy", models.policy_weights);
  in_part(plan.reward_model ? "reward model" : "critic", models.scalar_weights);
  if (!models.scalar) return;
  whole_scalar = std::make_unique<ScalarModel>(ScalarModel{
      shared_copy(whole(models.scalar->backbone)), models.scalar->head, models.scalar->labels});
}

const Transformer& Learner::Impl::whole(const Transformer& model) const {
  const auto found =
      std::ranges::find_if(split_models, [&](const auto& one) { return &one->part() == &model; });
  return found == split_models.end() ? model : (*found)->whole();
}

SplitModel* Learner::Impl::split_of(const Transformer& whole) const {
  // A copy that shares its tensors is the same to others.
  const auto& first = whole.parameters().front().tensor;
  const auto found = std::ranges::find_if(split_models, [&](const auto& one) {
    return one->whole().parameters().front().tensor.is_same(first);
  });
  return found == split_models.end() ? nullptr : found->get();
}

StatePlace Learner::Impl::place_of(const at::Tensor& parameter) const {
  const auto found = places.find(parameter.unsafeGetTensorImpl());
  return found == places.end() ? StatePlace{.sizes = parameter.sizes().vec()} : found->second;
}

void Learner::Impl::in_step(const std::function<void()>& work) const {
  if (grid.row) {
    run_in_step(*grid.row, work);
  } else {
    work();
  }
}

}  // namespace praetor
