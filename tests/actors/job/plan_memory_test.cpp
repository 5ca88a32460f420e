#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "actors/job/job_config.h"
#include "actors/job/plan.h"
#include "actors/toy/toy_language.h"
#include "core/base/str.h"
#include "core/model/transformer.h"
#include "learners/learner.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/live_bytes.h"

/// What `validate --plan` says of an update's memory, against what the update takes.
namespace praetor {
namespace {

// Sequences at their longest, a prompt as short as can be: nearly every row asks for a loss. Four
// of them are a micro-batch.
constexpr int64_t kSequence = 125, kMicroBatch = 500, kSequences = 8;

/// Rows of which neighbours begin otherwise, so that they share nothing.
std::vector<int64_t> tokens_of(int64_t i) {
  std::vector<int64_t> out;
  for (int64_t t = 0; t < kSequence; ++t)
    out.push_back(t == 0 ? 1 + i % 7 : (31 * t * t + 17 * i) % toy_language_vocabulary());
  return out;
}

std::vector<Example> examples() {
  std::vector<Example> out;
  for (int64_t i = 0; i < kSequences; ++i) {
    Example one{.tokens = tokens_of(i), .target = std::vector<uint8_t>(kSequence, 1), .row = i};
    one.target[0] = 0;
    out.push_back(std::move(one));
  }
  return out;
}

/// Of prompts of one token, drawn by the weights of update `version`.
Experience experience(int64_t version) {
  Experience out;
  out.offsets = {0};
  std::vector<int64_t> tokens, sequence_of;
  for (int64_t i = 0; i < kSequences; ++i) {
    for (const int64_t token : tokens_of(i)) tokens.push_back(token);
    sequence_of.insert(sequence_of.end(), kSequence - 1, i);
    out.offsets.push_back(static_cast<int64_t>(tokens.size()));
    out.prompt_lengths.push_back(1);
    out.finished.push_back(true);
    out.prompt_ordinal.push_back(i);
    out.sample_index.push_back(0);
    out.voice.push_back(0);
    out.satisfied.push_back(-1);
    out.task.emplace_back();
    out.preferences.emplace_back();
    out.weight_version.push_back(version);
  }
  out.tokens = at::tensor(tokens, at::kLong);
  out.sequence_of = at::tensor(sequence_of, at::kLong);
  out.score = at::arange(kSequences, at::kFloat);
  out.behavior_logprob = at::full({static_cast<int64_t>(sequence_of.size())}, -4, at::kFloat);
  return out;
}

struct Run {
  std::string kind;
  std::string learner = "";  ///< further keys of its section
  std::string method = "{}";
};

JobConfig job_of(const Run& run) {
  const bool online = run.kind == "ppo";
  const std::string rows = online ? "prompts_train" : run.kind == "dpo" ? "pairs" : "sft";
  const auto document = YamlDocument::parse(
      str("name: planned\nstages:\n  - {kind: toy_language, name: language}\n"
          "  - kind: sft\n    name: first\n    data: {train: stage:language/sft.jsonl}\n"
          "    model: {create: {hidden_size: 96, intermediate_size: 256, num_layers: 6, "
          "num_heads: 4, num_kv_heads: 2, head_dim: 32, max_positions: 128}}\n"
          "  - kind: ",
          run.kind,
          "\n    name: planned\n    model: {stage: first}\n    data: {train: stage:language/",
          rows,
          ".jsonl, max_length: ",
          online ? 1 : kSequence,
          "}\n",
          online ? str("    sampling: {max_new_tokens: ",
                       kSequence - 1,
                       "}\n    rewards: {parts: [{kind: length, max: 9}]}\n")
                 : "",
          "    learner: {micro_batch_tokens: ",
          kMicroBatch,
          run.learner.empty() ? "" : ", ",
          run.learner,
          "}\n    ",
          run.kind,
          ": ",
          run.method,
          "\n"));
  JobConfig job = JobConfig::read(document);
  REQUIRE(document->errors() == std::vector<std::string>{});
  return job;
}

/// Live bytes of tensors at the worst moment of the second of two updates.
int64_t measure(const StageConfig& stage, const ModelConfig& shape) {
  testing::LiveBytes bytes;
  LearnerModels models;
  models.policy = std::make_unique<Transformer>(shape, RandomStream({.job_seed = 3}));
  Learner learner(stage.learner, stage.make_algorithm(), std::move(models));
  const auto update = [&](int64_t version) {
    if (!stage.online()) {
      learner.update(examples());
      return;
    }
    // What an engine of this process decodes with.
    const auto gathered = learner.gather_weights({&learner.policy()});
    Experience rollouts = experience(version);
    learner.update(rollouts);
  };
  update(0);
  bytes.restart();
  update(1);
  return bytes.peak();
}

void check(const Run& run) {
  const testing::OneThread one_thread;
  const JobConfig job = job_of(run);
  ModelConfig shape = *job.stages[1].shape;
  shape.vocab_size = toy_language_vocabulary();
  const StagePlan plan = plan_job(job).at(2);
  REQUIRE(plan.update);
  REQUIRE(plan.update->options.micro_batch_tokens == kMicroBatch);
  const int64_t measured = measure(job.stages[2], shape);
  const MemoryPlan& memory = plan.update->memory;
  INFO(run.kind << ", " << run.learner << ", " << run.method << ": weights " << memory.weights
                << ", gradients " << memory.gradients << ", moments " << memory.moments
                << ", activations " << memory.activations << ", workspace " << memory.workspace);
  CHECK(static_cast<double>(memory.total()) == Approx(static_cast<double>(measured)).epsilon(0.1));
}

}  // namespace

TEST_CASE("the plan of an update with an adapter is what the update takes, within a tenth",
          "[actors][cpu]") {
  for (const std::string precision : {"float32", "bfloat16"}) {
    for (const std::string dropout : {"0", "0.1"}) {
      for (const std::string kept : {"none", "selective", "block"}) {
        check({"sft",
               str("precision: ",
                   precision,
                   ", lora: {rank: 16, dropout: ",
                   dropout,
                   "}, activation_checkpointing: ",
                   kept)});
      }
    }
  }
  check({"sft", "lora: {rank: 4, targets: [q_proj, v_proj]}"});
  check({"sft", "lora: {rank: 4, targets: [q_proj, v_proj], dropout: 0.1}, precision: bfloat16"});
  check({"sft", "lora: {rank: 64, targets: [down_proj]}"});
  check({"dpo", "lora: {rank: 8}"});
  check({"ppo", "lora: {rank: 8}"});
  check({"ppo", "lora: {rank: 8, dropout: 0.1}, precision: bfloat16"});
}

TEST_CASE("so is that of several networks, and of every optimizer", "[actors][cpu]") {
  check({"dpo"});
  check({"dpo", "precision: bfloat16"});
  check({"ppo"});
  check({"ppo", "precision: bfloat16, activation_checkpointing: selective"});
  check({"ppo", "", "{critic: {shared: true}}"});
  check({"ppo", "activation_checkpointing: block", "{critic: {optimizer: {kind: sgd}}}"});
  check({"sft", "optimizer: {kind: sgd}"});
  check({"sft", "optimizer: {kind: sgd, momentum: 0.9}, activation_checkpointing: selective"});
  check({"sft", "optimizer: {kind: adafactor}"});
  check({"sft", "optimizer: {kind: adafactor}, activation_checkpointing: block"});
}

}  // namespace praetor
