// Forwards and backwards in bfloat16 beside weights in float32.
#include <ATen/core/Tensor.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/model/converted.h"
#include "learners/learner_impl.h"

namespace praetor {

void Learner::Impl::add_copies() {
  if (config.precision == at::kFloat) return;
  if (config.exact_rollouts)
    throw InvalidArgument("exact_rollouts: an engine's float32 is not the learner's bfloat16");
  if (plan.probe) {
    throw InvalidArgument(algorithm->name(),
                          " finds its head in closed form; precision bfloat16 is for training");
  }
  const auto add = [&](const Transformer& model, bool language_head, const at::Tensor& head = {}) {
    copies.push_back(std::make_unique<ComputeCopy>(model, language_head, head));
  };
  if (plan.policy) {
    const bool shared = plan.critic == CriticKind::kShared;
    add(*models.policy, true, shared && !adapter ? models.value_head->weight : at::Tensor());
  }
  if (plan.anchor && models.anchor) add(*models.anchor, true);
  if (plan.reference && models.reference) {
    // An engine that samples from it takes it as it is.
    if (algorithm->sample_plan().others.empty()) {
      *models.reference = converted(*models.reference, config.precision);
    } else {
      add(*models.reference, true);
    }
  }
  // Heads that learn beside an adapter stay as they are, as that does.
  const bool adapted = scalar_net().adapter != nullptr;
  if (plan.critic == CriticKind::kSeparate || plan.reward_model)
    add(models.scalar->backbone, false, adapted ? at::Tensor() : models.scalar->head.weight);
}

ComputeCopy* Learner::Impl::copy_of(const Transformer& model) const {
  const auto found =
      std::ranges::find_if(copies, [&](const auto& one) { return &one->masters() == &model; });
  return found == copies.end() ? nullptr : found->get();
}

const Transformer& Learner::Impl::running(const Transformer& model) const {
  const ComputeCopy* copy = copy_of(model);
  return copy ? copy->network() : model;
}

Transformer& Learner::Impl::running(Transformer& model) {
  ComputeCopy* copy = copy_of(model);
  return copy ? copy->network() : model;
}

at::Tensor Learner::Impl::values(const Transformer& model,
                                 const ScalarHead& head,
                                 const at::Tensor& rows) const {
  const ComputeCopy* copy = copy_of(model);
  if (!copy) return head(rows);
  const at::Tensor& narrow = copy->scalar_head();
  return ScalarHead{narrow.defined() ? narrow.to(at::kFloat) : head.weight}(rows.to(at::kFloat));
}

void Learner::Impl::refresh_copy(const Transformer& model) const {
  const ComputeCopy* copy = copy_of(model);
  if (!copy) return;
  ShardedNetwork* network = sharding_of(model);
  if (network && network->is_cut()) {
    network->refresh_copies();
  } else {
    copy->refresh();
  }
}

void Learner::Impl::refresh_trained_copies() const {
  // What is under an adapter or a gate never changes.
  if (plan.policy && !adapter) refresh_copy(*models.policy);
  if (models.scalar && !plan.gate && !scalar_net().adapter) refresh_copy(models.scalar->backbone);
}

}  // namespace praetor
