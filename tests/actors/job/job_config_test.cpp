#include "actors/job/job_config.h"

#include <atomic>
#include <filesystem>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/base/text.h"
#include "tests/support/catch.h"

namespace praetor {

namespace {

// Four stages that need nothing from outside.
const std::string kJob =
    "name: small\n"
    "seed: 7\n"
    "checkpoint: {every: 20}\n"
    "stages:\n"
    "  - kind: toy_language\n"
    "    name: language\n"
    "    toy_language: {sft_rows: 100}\n"
    "  - kind: sft\n"
    "    model: {create: {hidden_size: 32, max_positions: 64}}\n"
    "    data: {train: stage:language/sft.jsonl}\n"
    "    epochs: 2\n"
    "    sft: {batch_size: 8}\n"
    "  - kind: reward_model\n"
    "    data: {train: stage:language/pairs.jsonl, max_length: 40}\n"
    "    steps: 5\n"
    "    checkpoint: {keep_last: 1}\n"
    "  - kind: ppo\n"
    "    data: {train: stage:language/prompts_train.jsonl}\n"
    "    sampling: {max_new_tokens: 16, temperature: 0.5}\n"
    "    rewards: {parts: [{kind: model, stage: reward_model}]}\n"
    "    learner: {optimizer: {learning_rate: 1e-4}}\n"
    "    ppo: {prompts_per_step: 8, samples_per_prompt: 2}\n";

JobConfig job_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return JobConfig::read(YamlDocument::parse(text, "job.yaml", overrides));
}

std::string errors_of(const JobConfig& job) {
  return join(job.document->errors(), "\n");
}

}  // namespace

TEST_CASE("a job of four stages links each to the results it starts from", "[actors][cpu]") {
  const JobConfig job = job_of(kJob);
  REQUIRE(errors_of(job) == "");
  CHECK(job.name == "small");
  CHECK(job.seed == 7);
  CHECK(job.output == "runs");
  CHECK(job.digest);
  REQUIRE(job.stages.size() == 4);

  const StageConfig& language = job.stages[0];
  CHECK(language.name == "language");
  CHECK_FALSE(language.trains());
  CHECK(language.toy.sft_rows == 100);
  CHECK(language.toy.pair_rows == 2000);

  const StageConfig& sft = job.stages[1];
  CHECK(sft.name == "sft");
  CHECK(sft.index == 1);
  REQUIRE(sft.model.create);
  CHECK(sft.model.create->intermediate_size == 128);
  CHECK(sft.model.create->head_dim == 8);
  CHECK(sft.tokenizer.stage == "language");
  CHECK(sft.data.train.in("/run/stages") == "/run/stages/language/sft.jsonl");
  CHECK(sft.data.format.max_length == 64);  // the model's positions, below the usual 1,024
  CHECK(sft.checkpoint.every == 20);
  CHECK(sft.checkpoint.keep_last == 2);
  CHECK(sft.total_steps(100, 8) == 25);
  CHECK(sft.make_algorithm()->sample_plan().prompts_per_step == 8);

  const StageConfig& taste = job.stages[2];
  CHECK(taste.model.source.stage == "sft");
  CHECK(taste.tokenizer.stage == "sft");
  CHECK(taste.data.format.max_length == 40);
  CHECK(taste.steps == 5);
  CHECK_FALSE(taste.epochs);
  CHECK(taste.checkpoint.every == 20);
  CHECK(taste.checkpoint.keep_last == 1);

  const StageConfig& ppo = job.stages[3];
  CHECK(ppo.model.source.stage == "sft");
  CHECK(ppo.data.format.max_length == 48);  // 64 positions without 16 new tokens
  CHECK(ppo.sampling.temperature == 0.5);
  CHECK(ppo.learner.optimizer.learning_rate == 1e-4);
  REQUIRE(ppo.rewards.parts.size() == 1);
  CHECK(ppo.rewards.parts[0].model->stage == "reward_model");
  CHECK(ppo.epochs == 1);
  CHECK(ppo.total_steps(20, 8) == 2);
  CHECK(job.find("ppo") == &ppo);
  CHECK_FALSE(job.find("dpo"));
}

TEST_CASE("a preference model judges pairs and is no policy to start from", "[actors][cpu]") {
  const std::string head = kJob.substr(0, kJob.find("  - kind: reward_model"));
  const std::string judged =
      "  - {kind: preference_model, steps: 5, data: {train: stage:language/pairs.jsonl}}\n"
      "  - kind: nash_md\n"
      "    data: {train: stage:language/prompts_train.jsonl}\n"
      "    sampling: {max_new_tokens: 16}\n"
      "    rewards: {parts: [{kind: preference, form: generative, stage: preference_model}]}\n"
      "    nash_md: {preference: pairwise}\n";
  const JobConfig job = job_of(head + judged);
  REQUIRE(errors_of(job) == "");
  CHECK(job.stages[2].result == StageResult::kPreferenceModel);
  CHECK(job.stages[3].model.source.stage == "sft");

  const std::string start = "    model: {stage: preference_model}\n";
  CHECK(errors_of(job_of(head + judged + start)) ==
        "job.yaml:19:20: stages[3].model.stage: stage \"preference_model\" makes a preference "
        "model, but a policy is wanted");
  // The next round of a preference model may start from the last.
  const std::string next =
      "  - {kind: preference_model, name: second, steps: 5, model: {stage: preference_model},\n"
      "     data: {train: stage:language/pairs.jsonl}}\n";
  CHECK(errors_of(job_of(head + judged + next)) == "");
}

TEST_CASE("the keys of a single stage may stand at the top level", "[actors][cpu]") {
  const std::string text =
      "name: one\nkind: sft\nmodel: {create: {}}\ntokenizer: {path: tok}\ndata: {train: a.jsonl}\n"
      "checkpoint: {every: 3}\n";
  const JobConfig job = job_of(text);
  REQUIRE(errors_of(job) == "");
  REQUIRE(job.stages.size() == 1);
  CHECK(job.name == "one");
  CHECK(job.stages[0].name == "sft");
  CHECK(job.stages[0].checkpoint.every == 3);
  CHECK(job.stages[0].data.train.path == std::filesystem::absolute("a.jsonl"));
  CHECK(job.stages[0].data.format.max_length == 512);
  CHECK(errors_of(job_of(text + "epoch: 2\n")) ==
        "job.yaml:7:1: unknown key \"epoch\", did you mean \"epochs\"?");
}

TEST_CASE("a resolved job reads as the same job", "[actors][cpu]") {
  for (const std::string& text :
       {kJob,
        std::string("name: one\nkind: sft\nmodel: {create: {}}\ntokenizer: {path: tok}\ndata: "
                    "{train: a.jsonl}\n")}) {
    const JobConfig first = job_of(text, {"seed=9"});
    const JobConfig second =
        JobConfig::read(YamlDocument::parse(first.resolved(), "/elsewhere/resolved.yaml"));
    CHECK(errors_of(second) == "");
    CHECK(second.resolved() == first.resolved());
    CHECK(second.seed == 9);
    CHECK(second.stages.back().data.train.path == first.stages.back().data.train.path);
  }
}

TEST_CASE("an override reaches a stage by its name", "[actors][cpu]") {
  const JobConfig job = job_of(
      kJob, {"stages.ppo.sampling.temperature=0.7", "stages.language.toy_language.eval_rows=3"});
  REQUIRE(errors_of(job) == "");
  CHECK(job.stages[3].sampling.temperature == 0.7);
  CHECK(job.stages[0].toy.eval_rows == 3);
  CHECK(errors_of(job_of(kJob, {"stages.ppo.sampling.temperature=-1"})) ==
        "--set stages.ppo.sampling.temperature=-1: stages[3].sampling.temperature: -1 is outside "
        "[0, 100]");
}

TEST_CASE("sampling ahead brings its correction, and is for methods that have one",
          "[actors][cpu]") {
  const auto correction = [](const std::vector<std::string>& overrides) {
    const JobConfig job = job_of(kJob, overrides);
    REQUIRE(errors_of(job) == "");
    // Whoever reads the resolved job must come to the same.
    const JobConfig again = job_of(job.resolved());
    CHECK(again.resolved() == job.resolved());
    CHECK(again.stages[3].max_staleness == job.stages[3].max_staleness);
    CHECK(again.stages[3].partial_rollouts == job.stages[3].partial_rollouts);
    YamlReader section = YamlReader(again.stages[3].in).child("ppo").child("mismatch");
    return str(section.get("correction", "?"), " ", job.stages[3].partial_rollouts);
  };
  CHECK(correction({}) == "none 0");
  CHECK(correction({"stages.ppo.max_staleness=2"}) == "token_tis 1");
  CHECK(correction({"stages.ppo.max_staleness=2",
                    "stages.ppo.partial_rollouts=false",
                    "stages.ppo.ppo.mismatch.correction=none"}) == "none 0");
  CHECK(job_of(kJob, {"stages.ppo.max_staleness=2"}).stages[3].max_staleness == 2);
  // So does sampling with other weights than the learner's.
  CHECK(correction({"stages.ppo.engine.weights=int8"}) == "token_tis 0");
  CHECK(correction({"stages.ppo.engine.weights=bfloat16",
                    "stages.ppo.ppo.mismatch.correction=none"}) == "none 0");
  CHECK(job_of(kJob, {"stages.ppo.engine.weights=int8"}).stages[3].engine.weights ==
        WeightKind::kInt8);

  std::string best = kJob.substr(0, kJob.find("  - kind: ppo"));
  best +=
      "  - kind: raft\n"
      "    max_staleness: 1\n"
      "    data: {train: stage:language/prompts_train.jsonl}\n"
      "    sampling: {max_new_tokens: 16}\n"
      "    rewards: {parts: [{kind: model, stage: reward_model}]}\n";
  CHECK(
      errors_of(job_of(best)) ==
      "job.yaml:18:20: stages[3].max_staleness: raft learns from samples of the present policy: 0 "
      "is wanted (ppo, grpo, dr_grpo, dapo, gspo, rloo, reinforce_pp and remax correct for older "
      "ones)");
}

TEST_CASE("load throws all errors of a job at once", "[actors][cpu]") {
  CHECK_THROWS_AS(JobConfig::load("no-such-folder/job.yaml"), MissingInput);
  const JobConfig job = job_of(
      "name: a/b\nsede: 1\nstages:\n  - kind: toy_langauge\n  - kind: sft\n    epochs: 0\n    "
      "steps: 1.5\n");
  CHECK(errors_of(job) ==
        "job.yaml:1:7: name: \"a/b\" may hold letters, digits, \"_\", \"-\" and \".\" only, and "
        "names a folder\n"
        "job.yaml:2:1: unknown key \"sede\", did you mean \"seed\"?\n"
        "job.yaml:4:11: stages[0].kind: unknown value \"toy_langauge\", did you mean "
        "\"toy_language\"? (one of " +
            join(stage_kind_names(), ", ") +
            ")\n"
            "job.yaml:5:5: stages[1].data: missing key \"train\"; a file of JSON lines, or "
            "stage:NAME/FILE, is wanted\n"
            "job.yaml:6:13: stages[1].epochs: 0 is outside [1, 1000000]\n"
            "job.yaml:7:12: stages[1].steps: 1.5 is a fraction, but a whole number is wanted\n"
            "job.yaml:7:12: stages[1].steps: epochs is given as well; keep one of the two");
}

TEST_CASE("the models of trees and tasks come from stages that make what they want",
          "[actors][cpu]") {
  const JobConfig job = job_of(
      "name: j\n"
      "stages:\n"
      "  - kind: toy_language\n"
      "  - {kind: sft, model: {create: {hidden_size: 8, num_layers: 1, num_heads: 2}},\n"
      "     data: {train: 'stage:toy_language/sft.jsonl'}}\n"
      "  - {kind: reward_model, data: {train: 'stage:toy_language/pairs.jsonl'}}\n"
      "  - kind: ppo\n"
      "    data: {train: 'stage:toy_language/prompts_train.jsonl'}\n"
      "    rewards:\n"
      "      parts:\n"
      "        - kind: sum\n"
      "          parts: [{kind: model, stage: sft}]\n"
      "      tasks:\n"
      "        chat:\n"
      "          parts: [{kind: llm_judge, stage: reward_model, text: '{response}', positive: y,\n"
      "                   negative: n}]\n"
      "        other: {parts: [{name: fine, kind: llm_judge, stage: sft, text: '{response}',\n"
      "                         positive: y, negative: n}]}\n");
  CHECK(
      errors_of(job) ==
      "job.yaml:12:40: stages[3].rewards.parts[0].parts[0].stage: stage \"sft\" makes a policy, "
      "but "
      "a reward model is wanted\n"
      "job.yaml:15:44: stages[3].rewards.tasks.chat.parts[0].stage: stage \"reward_model\" makes a "
      "reward model, but a policy or a preference model is wanted");
}

TEST_CASE("several threads make a job's algorithms at once, as ranks that are threads do",
          "[actors][cpu][config]") {
  const JobConfig job = job_of(kJob);
  const auto rows_of = [&] {
    int64_t rows = 0;
    for (size_t i = 1; i < job.stages.size(); ++i)
      rows += job.stages[i].make_algorithm()->sample_plan().prompts_per_step;
    return rows;
  };
  const int64_t wanted = rows_of();
  std::vector<std::thread> threads;
  std::atomic<int64_t> rows{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) rows += rows_of();
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(rows == 4 * 500 * wanted);
}

}  // namespace praetor
