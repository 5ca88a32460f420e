#include "learners/learner.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "core/model/converted.h"
#include "learners/algorithms/bradley_terry.h"
#include "learners/algorithms/preference_model.h"
#include "learners/learner_impl.h"
#include "learners/lora_config.h"
#include "learners/sharding/agreement.h"

namespace praetor {
namespace {

RandomStream initialisation(const LearnerConfig& config) {
  return RandomStream({.job_seed = config.seed,
                       .stage = config.stage,
                       .prompt_ordinal = 1,  // 0 is the policy's own
                       .purpose = Purpose::kInitialise});
}

void require_vocabulary(const char* who, const Transformer& model, const Transformer& policy) {
  if (model.config().vocab_size != policy.config().vocab_size) {
    throw InvalidArgument("the ",
                          who,
                          " has a vocabulary of ",
                          model.config().vocab_size,
                          ", the policy one of ",
                          policy.config().vocab_size,
                          ": they must share a tokenizer");
  }
}

/// To the device that they compute on; those that wait for their weights wait there.
void move_models(LearnerModels& models, at::Device device) {
  const auto move = [&](Transformer& model) { model = moved(model, device); };
  for (Transformer* model : {models.policy.get(), models.reference.get(), models.anchor.get()})
    if (model) move(*model);
  if (models.scalar) {
    move(models.scalar->backbone);
    models.scalar->head.weight = models.scalar->head.weight.to(device);
  }
  if (models.gate) *models.gate = models.gate->moved(device);
  if (models.value_head) models.value_head->weight = models.value_head->weight.to(device);
}

void complete_models(const ModelPlan& plan,
                     const LearnerConfig& config,
                     const std::string& name,
                     int64_t labels,
                     LearnerModels& models) {
  if (!config.device.is_cpu()) move_models(models, config.device);
  if (plan.reward_model) {
    if (!models.scalar) throw InvalidArgument(name, " needs a model with a scalar head to train");
    if (plan.gate && !models.gate) throw InvalidArgument(name, " needs a gate to train");
    const int64_t heads = models.scalar->head.weight.size(0);
    const int64_t wanted = plan.gate ? models.gate->attributes() : labels;
    if (heads != wanted)
      throw InvalidArgument(name, ": the model has ", heads, " heads, but ", wanted, " are wanted");
    return;
  }
  if (!models.policy) throw InvalidArgument(name, " needs a policy to train");
  const Transformer& policy = *models.policy;
  const bool waits = is_waiting(policy.parameters().front().tensor);
  const auto another = [&] {
    return waits ? moved(models.policy_weights->shell(), config.device) : policy.clone();
  };
  const auto fresh_head = [&](at::ScalarType dtype) {
    ScalarHead head = ScalarHead::make(policy.config().hidden_size, initialisation(config), dtype);
    head.weight = head.weight.to(config.device);
    return head;
  };
  const bool adapted = config.lora.has_value();
  if (plan.reference && (models.reference || !adapted)) {
    if (!models.reference) models.reference = std::make_unique<Transformer>(another());
    require_vocabulary("reference", *models.reference, policy);
  }
  if (plan.anchor && !adapted) {
    if (!models.anchor) models.anchor = std::make_unique<Transformer>(another());
    require_vocabulary("anchor", *models.anchor, policy);
  }
  const at::ScalarType dtype = policy.dtype();
  if (plan.critic == CriticKind::kSeparate) {
    if (!models.scalar && plan.critic_init != "policy") {
      throw InvalidArgument(name,
                            ": critic.init is ",
                            plan.critic_init,
                            ", but no ",
                            plan.critic_init,
                            " model was given to start from");
    }
    if (!models.scalar) {
      // Weights that no step changes may be the policy's own, unless they are cut for each network.
      const bool shares = adapted && config.sharding.stage < 3 && config.sharding.tensor == 1;
      models.scalar = std::make_unique<ScalarModel>(
          ScalarModel{shares ? shared_copy(policy) : another(), fresh_head(dtype)});
    }
    require_vocabulary("critic", models.scalar->backbone, policy);
  }
  if (plan.critic == CriticKind::kShared && !models.value_head) {
    models.value_head = fresh_head(dtype);
  }
}

}  // namespace

LearnerConfig LearnerConfig::from_yaml(YamlReader in) {
  LearnerConfig c;
  c.optimizer = OptimizerConfig::from_yaml(in.child("optimizer"));
  c.sharding = ShardingConfig::from_yaml(in.child("sharding"));
  if (const auto lora = in.optional_child("lora")) c.lora = lora_from_yaml(*lora);
  const std::string precision = in.get("precision", "float32", {"float32", "bfloat16"});
  c.precision = precision == "bfloat16" ? at::kBFloat16 : at::kFloat;
  if (in.get("device", "cpu", {"cpu", "cuda"}) == "cuda") c.device = at::kCUDA;
  c.micro_batch_tokens = in.get("micro_batch_tokens", c.micro_batch_tokens, at_least(1));
  const std::vector<std::string>& names = activation_checkpointing_names();
  c.activation_checkpointing =
      activation_checkpointing_of(in.get("activation_checkpointing", names.front(), names));
  in.reject_unknown_keys();
  return c;
}

Learner::Learner(LearnerConfig config,
                 std::unique_ptr<Algorithm> algorithm,
                 LearnerModels models,
                 Collective* collective)
    : impl_(std::make_unique<Impl>()) {
  Impl& my = *impl_;
  my.config = std::move(config);
  my.algorithm = std::move(algorithm);
  my.models = std::move(models);
  my.plan = my.algorithm->models();
  if (!collective) my.alone = make_local_collective();
  my.ranks = collective ? collective : my.alone.get();
  if (!(my.config.temperature > 0)) {
    throw InvalidArgument(
        "the learner's temperature is ", my.config.temperature, ", but ratios need it above 0");
  }
  my.require_device();
  const auto labels = static_cast<int64_t>(my.algorithm->sample_plan().labels.size());
  complete_models(
      my.plan, my.config, my.algorithm->name(), std::max<int64_t>(labels, 1), my.models);
  my.join_tensor_group();
  // Parts are read once the networks are split. What finds a head in closed form is read whole.
  if (!my.tensor || my.plan.probe) my.read_networks();
  my.add_adapters();
  my.require_equal_start();
  my.split_networks();
  my.read_networks();
  my.split_ranks();
  my.add_copies();
  my.add_host_views();
  if (my.plan.probe) return;  // which no optimizer steps
  const ActivationCheckpointing kind = my.config.activation_checkpointing;
  if (my.models.policy) set_activation_checkpointing(my.running(*my.models.policy), kind);
  if (my.models.scalar) set_activation_checkpointing(my.running(my.models.scalar->backbone), kind);
  my.shard_networks();
  my.models.policy_weights.reset();
  my.models.scalar_weights.reset();
  my.add_optimizers();
}

Learner::~Learner() = default;
Learner::Learner(Learner&&) noexcept = default;
Learner& Learner::operator=(Learner&&) noexcept = default;

Metrics Learner::evaluate(const std::vector<Example>& examples) const {
  const Impl& my = *impl_;
  const at::NoGradGuard no_grad;
  const SequenceBatch batch = SequenceBatch::from(examples, my.unit());
  if (my.algorithm->sample_plan().question) return my.evaluate_answers(batch);
  if (!my.algorithm->sample_plan().labels.empty()) return my.evaluate_labels(batch, examples);
  if (!my.plan.reward_model && my.unit() == 2)
    return my.evaluate_pairs(batch, my.reference_of(examples, batch));
  if (!my.plan.reward_model) {
    const at::Tensor logprob =
        my.logprobs(my.policy_net(), batch, 1.0, Impl::in_order(batch)).to(at::kDouble);
    const auto tokens = static_cast<double>(logprob.numel());
    if (tokens == 0) return {{"tokens", 0}};
    const double loss = -logprob.sum().item<double>() / tokens;
    return {{"loss", loss}, {"ppl", std::exp(loss)}, {"tokens", tokens}};
  }
  const double pairs = static_cast<double>(batch.sequences()) / 2;
  double loss = 0, correct = 0, margin = 0;
  const at::Tensor all_scores = my.scores(batch).to(at::kDouble);
  std::vector<int64_t> order(static_cast<size_t>(batch.sequences()));
  std::iota(order.begin(), order.end(), 0);
  // Summed by the micro-batches of a world of one, whatever the world.
  for (const auto& sequences :
       plan_micro_batches(batch, units_of(order, 2), my.config.micro_batch_tokens)) {
    const at::Tensor scores =
        all_scores.slice(0, sequences.front(), sequences.back() + 1).view({-1, 2});
    const PairLoss pair = bradley_terry(scores.select(1, 0), scores.select(1, 1), {}, pairs);
    loss += pair.loss.item<double>();
    correct += pair.correct.item<double>();
    margin += pair.margin.item<double>();
  }
  if (pairs == 0) return {{"pairs", 0}};
  return {
      {"loss", loss}, {"accuracy", correct / pairs}, {"margin", margin / pairs}, {"pairs", pairs}};
}

/// How well the policy, measured against the reference, tells chosen from rejected.
Metrics Learner::Impl::evaluate_pairs(const SequenceBatch& batch,
                                      const at::Tensor& reference_logprob) const {
  const auto pairs = static_cast<double>(batch.sequences()) / 2;
  if (pairs == 0) return {{"pairs", 0}};
  const at::Tensor ratio = (logprobs(policy_net(), batch, 1.0, in_order(batch)).to(at::kDouble) -
                            reference_logprob.to(at::kDouble));
  double correct = 0, margin = 0;
  const auto sum = [&](int64_t sequence) {
    const auto i = static_cast<size_t>(sequence);
    return ratio.slice(0, batch.target_offsets[i], batch.target_offsets[i + 1])
        .sum()
        .item<double>();
  };
  for (int64_t i = 0; i < batch.sequences(); i += 2) {
    const double gap = sum(i) - sum(i + 1);
    correct += gap > 0 ? 1 : (gap == 0 ? 0.5 : 0);
    margin += gap;
  }
  return {{"accuracy", correct / pairs}, {"margin", margin / pairs}, {"pairs", pairs}};
}

/// How well the policy's answers name what was chosen.
Metrics Learner::Impl::evaluate_answers(const SequenceBatch& batch) const {
  const int64_t sequences = batch.sequences();
  if (sequences % 2 != 0 || static_cast<int64_t>(batch.positions.size()) != sequences) {
    throw InvalidArgument(sequences, " questions do not come in pairs with one answer each");
  }
  if (sequences == 0) return {{"pairs", 0}};
  // The answer is the last token, so that another one there changes nothing before it.
  SequenceBatch swapped = batch;
  const auto answer = [&](int64_t i) {
    const auto at = static_cast<size_t>(i);
    return static_cast<size_t>(batch.offsets[at] + batch.positions[at]);
  };
  for (int64_t i = 0; i < sequences; i += 2)
    std::swap(swapped.tokens[answer(i)], swapped.tokens[answer(i + 1)]);
  const auto under = [&](const SequenceBatch& questions) {
    return logprobs(policy_net(), questions, 1.0, in_order(questions)).to(at::kDouble);
  };
  const auto pairs = static_cast<double>(sequences) / 2;
  const AnswerLoss out = answer_loss(under(batch), under(swapped), pairs);
  return {{"loss", out.loss.item<double>()},
          {"accuracy", out.correct / (2 * pairs)},
          {"order_consistency", out.consistent / pairs},
          {"probability", out.probability / pairs},
          {"pairs", pairs}};
}

/// Of rows with labels; rows whose tokens before the first target are equal share a prompt.
Metrics Learner::Impl::evaluate_labels(const SequenceBatch& batch,
                                       const std::vector<Example>& examples) const {
  if (examples.empty()) return {{"rows", 0}};
  LabelledScores rows{.labels = labels_of(examples)};
  rows.score = scores(batch).to(at::kDouble).view(rows.labels.sizes());
  std::map<std::vector<int64_t>, int64_t> prompts;
  for (const Example& example : examples) {
    const auto targets = std::ranges::find(example.target, 1) - example.target.begin();
    const std::vector<int64_t> prompt(example.tokens.begin(), example.tokens.begin() + targets);
    rows.prompt.push_back(
        prompts.try_emplace(prompt, static_cast<int64_t>(prompts.size())).first->second);
  }
  return algorithm->evaluate_labels(rows);
}

at::Tensor Learner::policy_logprobs(const Experience& experience) const {
  if (!has_policy()) throw InvalidArgument(impl_->algorithm->name(), " trains no policy");
  const SequenceBatch batch = SequenceBatch::from(experience);
  return impl_->logprobs(impl_->policy_net(), batch, impl_->temperature(), Impl::in_order(batch));
}

at::Tensor Learner::policy_logprobs(const std::vector<Example>& examples) const {
  if (!has_policy()) throw InvalidArgument(impl_->algorithm->name(), " trains no policy");
  const SequenceBatch batch = SequenceBatch::from(examples, impl_->unit());
  return impl_->logprobs(impl_->policy_net(), batch, 1.0, Impl::in_order(batch));
}

at::Tensor Learner::reference_logprobs(const Experience& experience) const {
  if (!impl_->plan.reference)
    throw InvalidArgument(impl_->algorithm->name(), " holds no reference");
  const SequenceBatch batch = SequenceBatch::from(experience);
  return impl_->logprobs(
      impl_->reference_net(), batch, impl_->temperature(), Impl::in_order(batch));
}

int64_t Learner::step() const {
  return impl_->updates;
}
const Algorithm& Learner::algorithm() const {
  return *impl_->algorithm;
}
bool Learner::has_policy() const {
  return impl_->models.policy != nullptr;
}

const Transformer& Learner::policy() const {
  if (!impl_->models.policy) throw InvalidArgument(impl_->algorithm->name(), " trains no policy");
  if (impl_->policy_view) return impl_->policy_view->model();
  return impl_->merged_policy ? *impl_->merged_policy : impl_->whole(*impl_->models.policy);
}

const Transformer* Learner::companion() const {
  const Impl& my = *impl_;
  if (my.companion_view) return &my.companion_view->model();
  if (my.merged_anchor) return my.merged_anchor.get();
  if (my.models.anchor) return &my.whole(*my.models.anchor);
  return my.plan.reference ? &my.whole(*my.reference_net().model) : nullptr;
}

const ScalarModel& Learner::scalar() const {
  if (!impl_->models.scalar)
    throw InvalidArgument(impl_->algorithm->name(), " holds no scalar model");
  if (impl_->host_scalar) return *impl_->host_scalar;
  if (impl_->merged_scalar) return *impl_->merged_scalar;
  return impl_->whole_scalar ? *impl_->whole_scalar : *impl_->models.scalar;
}

const AttributeGate& Learner::gate() const {
  if (!impl_->models.gate) throw InvalidArgument(impl_->algorithm->name(), " holds no gate");
  return impl_->host_gate();
}

}  // namespace praetor
