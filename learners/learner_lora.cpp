// Networks in training that keep their weights, with low-rank adapters beside them.
#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "learners/learner_impl.h"

namespace praetor {
namespace {

/// Of the streams that a stage's first weights come from: 0 is the policy's, 1 the heads'.
constexpr uint64_t kAdapterStream = 2;
constexpr uint64_t kCriticStream = 3;
/// Among the streams of an update: below are those of its epochs.
constexpr uint32_t kDropoutStreams = uint32_t{1} << 31;

}  // namespace

Learner::Impl::AdaptersOn::AdaptersOn(const Impl& learner) {
  const Net on_policy = learner.policy_net(), on_scalar = learner.scalar_net();
  if (on_policy.model) policy.emplace(learner.running(*on_policy.model), on_policy.adapter);
  if (on_scalar.model) scalar.emplace(learner.running(*on_scalar.model), on_scalar.adapter);
}

Learner::Impl::Net Learner::Impl::reference_net() const {
  if (models.reference || !adapter) return {models.reference.get(), nullptr};
  return {models.policy.get(), nullptr};
}

Learner::Impl::Net Learner::Impl::anchor_net() const {
  if (adapter) return {models.policy.get(), anchor_adapter.get()};
  return {models.anchor.get(), nullptr};
}

Learner::Impl::Net Learner::Impl::scalar_net() const {
  if (!models.scalar) return {};
  return {&models.scalar->backbone, plan.reward_model ? adapter.get() : critic_adapter.get()};
}

void Learner::Impl::add_adapters() {
  if (!config.lora) return;
  const std::string& name = algorithm->name();
  if (plan.gate || plan.probe)
    throw InvalidArgument(name, " trains a head over a backbone that stays as it is: without lora");
  if (models.anchor) throw InvalidArgument(name, ": lora keeps the anchor as an adapter");
  if (config.exact_rollouts)
    throw InvalidArgument(name, ": exact_rollouts, but with lora engines have merged weights");
  const auto make = [&](const Transformer& model, uint64_t stream) {
    const SampleKey key{.job_seed = config.seed,
                        .stage = config.stage,
                        .prompt_ordinal = stream,
                        .purpose = Purpose::kInitialise};
    const at::ScalarType dtype = model.dtype() == at::kDouble ? at::kDouble : at::kFloat;
    return std::make_unique<LoraAdapter>(
        LoraAdapter::make(model.config(), *config.lora, key, dtype).moved(config.device));
  };
  const auto view = [&](const Transformer& base, const LoraAdapter& its) {
    auto out = std::make_unique<Transformer>(shared_copy(base));
    merged.push_back({.model = out.get(), .base = &base, .adapter = &its});
    return out;
  };
  const Transformer& trained = plan.policy ? *models.policy : models.scalar->backbone;
  adapter = make(trained, kAdapterStream);
  if (plan.critic == CriticKind::kSeparate)
    critic_adapter = make(models.scalar->backbone, kCriticStream);
  if (plan.anchor) anchor_adapter = std::make_unique<LoraAdapter>(adapter->clone());
  if (on_device()) return;  // whose views merge what they show, in the processor's memory
  if (plan.policy) merged_policy = view(*models.policy, *adapter);
  if (plan.anchor) merged_anchor = view(*models.policy, *anchor_adapter);
  if (const Net net = scalar_net(); net.adapter) {
    merged_scalar = std::make_unique<ScalarModel>(
        ScalarModel{shared_copy(*net.model), models.scalar->head, models.scalar->labels});
    merged.push_back(
        {.model = &merged_scalar->backbone, .base = net.model, .adapter = net.adapter});
  }
}

void Learner::Impl::begin_dropout(int64_t number) {
  if (!adapter || config.lora->dropout == 0) return;
  RandomStream stream({.job_seed = config.seed,
                       .stage = config.stage,
                       .prompt_ordinal = static_cast<uint64_t>(updates),
                       .sample_index = kDropoutStreams + static_cast<uint32_t>(number),
                       .purpose = Purpose::kMinibatch});
  for (LoraAdapter* one : {adapter.get(), critic_adapter.get()})
    if (one) one->set_dropout_key(stream.below(uint64_t{1} << 53));
}

std::vector<NamedTensor> Learner::Impl::trained_parameters(const Net& net) {
  return net.adapter ? net.adapter->parameters() : net.model->parameters();
}

std::vector<NamedTensor> Learner::Impl::trained_scalar_parameters() const {
  const Net net = scalar_net();
  if (!net.adapter) return models.scalar->parameters();
  std::vector<NamedTensor> out = net.adapter->parameters();
  out.push_back({"score.weight", models.scalar->head.weight});
  return out;
}

Learner::Impl::Merged* Learner::Impl::merged_of(const Transformer& model) const {
  const auto found = std::ranges::find(merged, &model, &Merged::model);
  return found == merged.end() ? nullptr : &*found;
}

void Learner::Impl::merge(Merged& one) const {
  if (one.version == adapter_version) return;
  if (one.version == 0) {
    *one.model = one.adapter->merged(*one.base);
  } else {
    one.adapter->merge_into(*one.model, *one.base);
  }
  one.version = adapter_version;
}

void Learner::visit_weights(const Transformer& model,
                            const std::vector<NamedTensor>& tensors,
                            const std::function<void(std::span<const NamedTensor>)>& visit) const {
  Impl::Merged* const one = impl_->merged_of(model);
  if (!one) return visit_weights(tensors, visit);
  if (one->version == 0) {
    // Its tensors are the base's own: nobody has asked for merged ones that stay.
    visit_weights(tensors, [&](std::span<const NamedTensor> some) {
      for (const NamedTensor& named : some) {
        const NamedTensor merged{named.name, one->adapter->merged_weight(named)};
        visit(std::span(&merged, 1));
      }
    });
    return;
  }
  if (impl_->ranks->rank() == 0) impl_->merge(*one);
  // Of the first merge come tensors that were not there before.
  std::vector<NamedTensor> now = tensors;
  for (NamedTensor& named : now) {
    const auto found = std::ranges::find(model.parameters(), named.name, &NamedTensor::name);
    if (found != model.parameters().end()) named.tensor = found->tensor;
  }
  visit_weights(now, visit);
}

const LoraAdapter* Learner::adapter() const {
  return impl_->adapter.get();
}

Adapted Learner::adapted(const Transformer& model) const {
  if (impl_->on_device()) return impl_->adapted_on_host(model);
  const Impl::Merged* const one = impl_->merged_of(model);
  return one ? Adapted{one->base, one->adapter} : Adapted{};
}

}  // namespace praetor
