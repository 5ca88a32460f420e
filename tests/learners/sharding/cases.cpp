#include "tests/learners/sharding/cases.h"

#include <cmath>
#include <span>
#include <stdexcept>
#include <utility>

#include "core/base/sha256.h"
#include "learners/algorithms/attribute_gate.h"
#include "learners/algorithms/attribute_model.h"
#include "learners/algorithms/dpo.h"
#include "learners/algorithms/grpo.h"
#include "learners/algorithms/ppo.h"
#include "learners/algorithms/reward_model.h"
#include "learners/algorithms/sft.h"
#include "tests/learners/support/groups.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/emulated_kernels.h"

namespace praetor::testing {

const std::vector<std::string>& learner_cases() {
  static const std::vector<std::string> kCases{"ppo",
                                               "ppo_shared",
                                               "grpo",
                                               "nash_md",
                                               "nash_ema",
                                               "sft",
                                               "dpo",
                                               "reward_model",
                                               "attribute_model",
                                               "attribute_gate"};
  return kCases;
}

namespace {

/// The pairs as rows of two labels each, every third one without its second.
std::vector<Example> labelled_rows() {
  std::vector<Example> out = example_pairs();
  for (size_t i = 0; i < out.size(); ++i) {
    const auto x = static_cast<double>(i);
    out[i].labels = {std::sin(x), i % 3 == 2 ? std::nan("") : std::cos(x)};
  }
  return out;
}

RandomStream stream_of(const CaseOptions& options) {
  return RandomStream({.job_seed = options.seed, .purpose = Purpose::kInitialise});
}

Transformer network(const CaseOptions& options) {
  ModelConfig config = tiny_policy()->config();
  config.tie_embeddings = options.tied;
  config.num_layers = options.layers;
  config.num_heads = options.heads;
  config.num_kv_heads = options.kv_heads;
  return Transformer(config, stream_of(options), options.weights);
}

void add_policy(LearnerModels& models, const CaseOptions& options) {
  if (options.folder.empty()) {
    models.policy = std::make_unique<Transformer>(network(options));
    return;
  }
  models.policy_weights = open_model(options.folder, options.weights);
  models.policy = std::make_unique<Transformer>(models.policy_weights->shell());
}

void add_scalar(LearnerModels& models, const CaseOptions& options, int64_t heads) {
  if (options.folder.empty()) {
    models.scalar = std::make_unique<ScalarModel>(ScalarModel{
        network(options), ScalarHead::make(16, stream_of(options), options.weights, heads)});
    return;
  }
  OpenedScalar opened = open_scalar(options.folder, stream_of(options), options.weights, heads);
  models.scalar = std::make_unique<ScalarModel>(std::move(opened.model));
  models.scalar_weights = std::move(opened.backbone);
}

OptimizerConfig optimizer_of(const CaseOptions& options, double learning_rate) {
  OptimizerConfig out;
  out.kind = options.optimizer;
  out.learning_rate = learning_rate;
  out.max_grad_norm = options.max_grad_norm;
  out.momentum = 0.9;
  out.state_dtype = options.state_dtype;
  out.offload = options.offload;
  return out;
}

}  // namespace

Learner make_case(const std::string& name, Collective* ranks, const CaseOptions& options) {
  LearnerConfig config;
  config.optimizer = optimizer_of(options, options.learning_rate);
  config.precision = options.precision;
  if (options.emulated) config.device = emulated_device(ranks ? ranks->rank() : 0);
  if (options.emulated && !options.operators) config.optimizer.kernels = emulated_kernels();
  config.optimizer.weight_decay = 0.01;
  config.micro_batch_tokens = options.micro_batch_tokens;
  config.sharding = {.stage = options.stage,
                     .prefetch = options.prefetch,
                     .tensor = options.tensor,
                     .group = options.group};
  config.activation_checkpointing = options.checkpointing;
  config.lora = options.lora;
  config.seed = 5;
  LearnerModels models;
  if (name == "reward_model") {
    add_scalar(models, options, 1);
    return Learner(config, make_reward_model({.margin = true}), std::move(models), ranks);
  }
  if (name == "attribute_model") {
    add_scalar(models, options, 2);
    AttributeModelConfig attributes;
    attributes.attributes = {{"good", 1}, {"long", -1}};
    return Learner(config, make_attribute_model(attributes), std::move(models), ranks);
  }
  if (name == "attribute_gate") {
    add_scalar(models, options, 2);
    models.gate =
        std::make_unique<AttributeGate>(AttributeGate::make(16, 2, 1, 8, stream_of(options)));
    return Learner(config, make_attribute_gate({}), std::move(models), ranks);
  }
  add_policy(models, options);
  if (name == "dpo") return Learner(config, make_dpo({.beta = 1}), std::move(models), ranks);
  if (name == "sft") return Learner(config, make_sft(SftConfig{}), std::move(models), ranks);
  if (name == "grpo") {
    GrpoConfig grpo;
    grpo.epochs = 1;
    grpo.minibatches = options.minibatches;
    grpo.aggregation = "seq-mean-token-sum-norm";  // the loss is not 0 at the start
    grpo.max_tokens = 8;
    grpo.mask_truncated = true;
    return Learner(config, make_grpo(grpo), std::move(models), ranks);
  }
  if (name.starts_with("nash_")) {
    const char* settings = name == "nash_ema" ? "{decay: 0.75}" : "{}";
    return Learner(config, algorithm_from(name, settings), std::move(models), ranks);
  }
  PpoConfig ppo;
  ppo.epochs = 1;
  ppo.minibatches = options.minibatches;
  ppo.entropy_coefficient = 0.01;
  ppo.score_normalise = true;
  ppo.kl.controller = "adaptive";
  ppo.critic.shared = name == "ppo_shared";
  ppo.critic.optimizer = optimizer_of(options, 2 * options.learning_rate);
  return Learner(config, make_ppo(ppo), std::move(models), ranks);
}

StepReport update_case(const std::string& name, Learner& learner, int step, bool few) {
  if (!learner.algorithm().online()) {
    auto examples = name == "attribute_model" ? labelled_rows() : example_pairs();
    if (few) examples.resize(2);
    return learner.update(examples);
  }
  const bool groups = name.starts_with("nash_");
  auto rolls = groups ? group_rolls() : mixed_rolls();
  if (few) rolls.resize(groups ? 4 : 2);
  for (size_t i = 0; i < rolls.size(); ++i)
    rolls[i].score += 0.3 * std::sin(static_cast<double>(i) + step);
  auto whole = learner.gather_weights({&learner.policy()}, true);
  Experience experience = groups ? make_groups(rolls, 4, learner.policy(), learner.algorithm())
                                 : make_experience(rolls, learner.policy());
  whole.reset();
  if (name == "grpo") {
    experience.prompt_ordinal = {0, 0, 0, 1, 1};
    experience.prompt_ordinal.resize(rolls.size());
  }
  return learner.update(experience);
}

double loss_of(const std::string& name, const StepReport& report) {
  if (name == "sft") return metric(report, "sft/loss");
  if (name == "dpo") return metric(report, "dpo/loss");
  if (name == "reward_model") return metric(report, "rm/loss");
  if (name == "attribute_model") return metric(report, "attributes/loss");
  if (name == "attribute_gate") return metric(report, "gate/loss");
  if (name == "grpo" || name.starts_with("nash_")) return metric(report, "policy/loss");
  return metric(report, "policy/loss") + 0.1 * metric(report, "value/loss");
}

std::vector<Example> example_pairs() {
  return {make_example({1, 2}, {3, 4, 5}, 0.5),
          make_example({1, 2}, {6}),
          make_example({1}, {3, 3}),
          make_example({1}, {8, 9, 7}),
          make_example({1, 7}, {3, 2}),
          make_example({1, 7}, {9, 9, 9, 9}),
          make_example({4}, {5, 6, 2}, -0.2),
          make_example({4}, {10}),
          make_example({3, 3, 3}, {1, 2}),
          make_example({3, 3, 3}, {6, 8})};
}

std::string weights_digest(const Learner& learner) {
  Sha256 digest;
  const auto add = [&](const std::vector<NamedTensor>& tensors) {
    for (const NamedTensor& t : tensors) {
      const at::Tensor values = t.tensor.detach().contiguous();
      digest.update(t.name).update(
          std::span(static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()));
    }
  };
  const CriticKind critic = learner.algorithm().models().critic;
  const bool scalar = critic == CriticKind::kSeparate || !learner.has_policy();
  const auto whole = learner.gather_weights({learner.has_policy() ? &learner.policy() : nullptr,
                                             scalar ? &learner.scalar().backbone : nullptr},
                                            true);
  if (learner.has_policy()) add(learner.policy().parameters());
  if (scalar) add(learner.scalar().parameters());
  if (learner.algorithm().models().gate) add(learner.gate().parameters());
  return digest.hex();
}

}  // namespace praetor::testing
