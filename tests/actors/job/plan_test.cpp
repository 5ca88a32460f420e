#include "actors/job/plan.h"

#include "actors/toy/toy_language.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

/// What a step runs forward before its passes.
std::string forwards_of(const StagePlan& plan) {
  std::vector<std::string> names;
  for (const PlannedNetwork& one : plan.update->forwards) names.push_back(one.name);
  return join(names, " ");
}

}  // namespace

TEST_CASE("the plan counts networks, bytes and steps from the shapes", "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const testing::TempDir dir;
  const std::string model = (shared / "data" / "stories260K").string();
  const std::string prompts = (shared / "data" / "story-prompts" / "train.jsonl").string();
  write_file_atomic(dir / "job.yaml",
                    "name: plan\nkind: ppo\nmodel: {path: \"" + model + "\"}\ndata: {train: \"" +
                        prompts +
                        "\", max_length: 32}\nsampling: {max_new_tokens: 48}\nepochs: 2\n"
                        "rewards: {parts: [{kind: length, max: 9}]}\n"
                        "ppo: {prompts_per_step: 16, samples_per_prompt: 4}\n");
  const JobConfig job = JobConfig::load(dir / "job.yaml");
  const auto plan = plan_job(job);
  REQUIRE(plan.size() == 1);
  CHECK(plan[0].rows == 600);
  CHECK(plan[0].steps == 75);  // 2 x 600 / 16
  CHECK(plan[0].sequences_per_step == 64);
  // 260,032 parameters with tied embeddings; the critic has a head of 64 more.
  REQUIRE(plan[0].networks.size() == 3);
  CHECK(plan[0].networks[0].parameters == 260032);
  CHECK(plan[0].networks[1].name == "reference");
  CHECK(plan[0].networks[2].parameters == 260096);
  CHECK(plan[0].model_bytes() == 16 * 260032 + 4 * 260032 + 16 * 260096);
  // 5 layers x 4 heads x 8 x 2 x 4 bytes a token, 80 tokens, 64 sequences.
  CHECK(plan[0].cache_bytes == 5 * 4 * 8 * 2 * 4 * 80 * 64);
  CHECK(plan[0].ledger_bytes_per_step == 64 * (64 + 400 + 4 * 80 + 16 * 48));
  // 64 sequences of 80 tokens; into 8192 go 102 of them.
  REQUIRE(plan[0].update);
  CHECK(plan[0].update->tokens == 64 * 80);
  CHECK(plan[0].update->micro_batches == 1);
  CHECK(plan[0].update->memory.weights == 4 * (2 * 260032 + 260096));
  CHECK(plan[0].update->memory.moments == 8 * (260032 + 260096));
  CHECK(forwards_of(plan[0]) == "reference critic");
  CHECK(plan[0].update->memory.activations > 2 * 5 * 64 * 80 * 64);
  CHECK(plan[0].update->exchanged_bytes == 0);
  const std::string text = plan_text(plan);
  CHECK_THAT(text,
             Catch::Contains("memory of a learner rank in an update: at most about ") &&
                 Catch::Contains("one pass over a step's 5120 tokens at most: 0.0") &&
                 !Catch::Contains("exchanged:"));
  CHECK(text.find("steps: 75, 64 sequences each, from 600 rows") != std::string::npos);
  CHECK(text.find("policy                       260032") != std::string::npos);
}

TEST_CASE("a learner rank keeps less at each stage of sharding", "[actors][cpu]") {
  StagePlan plan{.name = "s",
                 .kind = "ppo",
                 .networks = {{"policy", 1000, true},
                              {"reference", 1000, false},
                              {"reward/judge", 1000, false, false}},
                 .learner_ranks = 4};
  // Of the policy 4000 bytes of weights, 4000 of gradients, 8000 of moments; of the reference 4000.
  CHECK(plan.rank_bytes() == 4000 + 4000 + 2000 + 4000);
  plan.sharding.stage = 2;
  CHECK(plan.rank_bytes() == 4000 + 1000 + 2000 + 4000);
  plan.sharding.stage = 3;
  CHECK(plan.rank_bytes() == 1000 + 1000 + 2000 + 1000);
  CHECK_THAT(plan_text({plan}),
             Catch::Contains("each of 4 learner ranks keeps, at sharding stage 3: 4.9 KiB"));
  plan.sharding.group = 2;
  CHECK(plan.rank_bytes() == 2000 + 2000 + 4000 + 2000);
  CHECK_THAT(plan_text({plan}), Catch::Contains("at sharding stage 3 in groups of 2: 9.8 KiB"));
}

TEST_CASE("a reference that is asked once takes no memory", "[actors][cpu]") {
  for (const char* reference : {"computed", "precomputed"}) {
    CAPTURE(reference);
    const auto document = YamlDocument::parse(
        str("name: toy\nstages:\n  - {kind: toy_language, name: language}\n"
            "  - {kind: sft, model: {create: {}}, data: {train: stage:language/sft.jsonl}}\n"
            "  - {kind: dpo, data: {train: stage:language/pairs.jsonl}, dpo: {reference: ",
            reference,
            "}}\n"));
    const JobConfig job = JobConfig::read(document);
    REQUIRE(document->errors() == std::vector<std::string>{});
    CHECK(plan_job(job).at(2).networks.size() == (reference == std::string("computed") ? 2 : 1));
  }
}

TEST_CASE("under an adapter weights have no gradients, and a reference takes no memory",
          "[actors][cpu]") {
  const auto document = YamlDocument::parse(
      "name: toy\nstages:\n  - {kind: toy_language, name: language}\n"
      "  - {kind: sft, model: {create: {}}, data: {train: stage:language/sft.jsonl}}\n"
      "  - {kind: dpo, data: {train: stage:language/pairs.jsonl}, learner: {lora: {rank: 4}}}\n"
      "  - {kind: ppo, data: {train: stage:language/prompts_train.jsonl},\n"
      "     rewards: {parts: [{kind: length, max: 9}]}, learner: {lora: {rank: 4}}}\n");
  const JobConfig job = JobConfig::read(document);
  REQUIRE(document->errors() == std::vector<std::string>{});
  const auto plan = plan_job(job);
  ModelConfig shape = *job.stages[1].shape;
  shape.vocab_size = toy_language_vocabulary();
  // Of two layers: q, k, v, o [128,128], gate and up [512,128], down [128,512].
  const int64_t adapter = 2 * 4 * (4 * 256 + 3 * 640), changed = 2 * (4 * 128 * 128 + 3 * 65536);
  const int64_t whole = shape.parameter_count();
  REQUIRE(plan[2].networks.size() == 2);
  CHECK(plan[2].networks[1].name == "policy's adapter");
  CHECK(plan[2].networks[1].parameters == adapter);
  CHECK(plan[2].model_bytes() == 4 * whole + 16 * adapter);
  // Engines decode with merged weights; the critic begins as the policy, whose weights stay.
  CHECK(plan[3].model_bytes() == 4 * whole + 4 * changed + 16 * adapter + 16 * (adapter + 128));
  REQUIRE(plan[3].update);
  CHECK(plan[3].update->memory.weights ==
        4 * whole + 4 * changed + 4 * adapter + 4 * (adapter + 128));
  CHECK(plan[3].update->memory.gradients == 4 * adapter + 4 * (adapter + 128));
  CHECK(plan[3].update->memory.moments == 8 * adapter + 8 * (adapter + 128));
  // The reference is the policy without its adapter; engines of merged weights have other bits.
  CHECK(forwards_of(plan[2]) == "policy");
  CHECK(forwards_of(plan[3]) == "policy policy critic");
  const StagePlan::Update& update = *plan[2].update;
  const auto context = update.options.sequence_tokens / 2;
  const double pass =
      update_flops(update.networks, update.options.checkpointing, update.tokens, context);
  CHECK(update.flops == Approx(pass + update_flops({{.shape = shape, .trained = false}},
                                                   update.options.checkpointing,
                                                   update.tokens,
                                                   context)));
  // Workers of their own merge what is published of it.
  JobConfig apart = job;
  apart.placement = "separate";
  CHECK(plan_job(apart)[3].model_bytes() == plan[3].model_bytes() - 4 * changed);
  StagePlan ranks = plan[2];
  ranks.learner_ranks = 4;
  ranks.sharding.stage = 3;
  CHECK(ranks.rank_bytes() == whole + 4 * adapter + 4 * adapter + 2 * adapter);
}

TEST_CASE("a stage over a toy language is sized before the language is written", "[actors][cpu]") {
  const auto document = YamlDocument::parse(
      "name: toy\nstages:\n  - {kind: toy_language, name: language}\n"
      "  - {kind: sft, model: {create: {}}, data: {train: stage:language/sft.jsonl}}\n"
      "  - {kind: reward_model, data: {train: stage:language/pairs.jsonl}}\n"
      "  - kind: ppo\n    model: {stage: sft}\n"
      "    data: {train: stage:language/prompts_train.jsonl}\n"
      "    rewards: {parts: [{kind: model, name: taste, stage: reward_model}]}\n");
  const JobConfig job = JobConfig::read(document);
  REQUIRE(document->errors() == std::vector<std::string>{});
  const auto plan = plan_job(job);
  REQUIRE(plan.size() == 4);
  CHECK(plan[0].networks.empty());
  ModelConfig shape = *job.stages[1].shape;
  REQUIRE(shape.vocab_size == 0);  // not known without the tokenizer
  shape.vocab_size = toy_language_vocabulary();
  REQUIRE(plan[1].networks.size() == 1);
  CHECK(plan[1].networks[0].parameters == shape.parameter_count());
  CHECK(plan[1].steps == 62);  // 2000 rows in steps of 32
  REQUIRE(plan[2].networks.size() == 1);
  const int64_t head = shape.tie_embeddings ? 0 : shape.vocab_size * shape.hidden_size;
  const int64_t scalar = shape.parameter_count() - head + shape.hidden_size;
  CHECK(plan[2].networks[0].parameters == scalar);
  REQUIRE(plan[3].networks.size() == 4);  // policy, reference, reward/taste, critic
  CHECK(plan[3].networks[2].name == "reward/taste");
  CHECK(plan[3].networks[2].parameters == scalar);
  CHECK(plan_text(plan).find("stage language (toy_language)") == 0);
}

TEST_CASE("a gate is counted beside the frozen model below it", "[actors][cpu]") {
  const auto document = YamlDocument::parse(
      "name: gated\nstages:\n  - {kind: toy_language, name: language}\n"
      "  - {kind: attribute_model, model: {create: {hidden_size: 32}},\n"
      "     data: {train: stage:language/attributes.jsonl},\n"
      "     attribute_model: {attributes: {kindness: 1, verbosity: 1}}}\n"
      "  - {kind: attribute_gate, data: {train: stage:language/pairs.jsonl},\n"
      "     attribute_gate: {layers: 1, width: 16}}\n");
  const JobConfig job = JobConfig::read(document);
  CHECK(document->errors().empty());
  const auto plan = plan_job(job);
  REQUIRE(plan.size() == 3);
  CHECK(plan[1].sequences_per_step == 32);
  CHECK(plan[1].networks[0].trained);
  REQUIRE(plan[2].networks.size() == 2);
  CHECK_FALSE(plan[2].networks[0].trained);
  // 33 x 16 of the hidden layer, 17 x 2 of the last one, the scale.
  CHECK(plan[2].networks[1].parameters == 563);
  CHECK(plan[2].rows == 2000);
}

TEST_CASE("a probe trains nothing and takes all rows in one step", "[actors][cpu]") {
  const auto document = YamlDocument::parse(
      "name: probed\nstages:\n  - {kind: toy_language, name: language}\n"
      "  - {kind: attribute_probe, model: {create: {hidden_size: 32}},\n"
      "     data: {train: stage:language/attributes.jsonl},\n"
      "     attribute_probe: {attributes: {kindness: 1}}}\n");
  const JobConfig job = JobConfig::read(document);
  CHECK(document->errors().empty());
  const auto plan = plan_job(job);
  REQUIRE(plan.size() == 2);
  CHECK(plan[1].steps == 1);
  CHECK(plan[1].sequences_per_step == 2000);
  REQUIRE(plan[1].networks.size() == 1);
  CHECK_FALSE(plan[1].networks[0].trained);
}

TEST_CASE("a plan counts copies in bfloat16 and what optimizers keep", "[actors][cpu]") {
  const auto bytes = [](const std::string& learner, const std::string& critic = "{}") {
    const auto document = YamlDocument::parse(
        str("name: toy\nstages:\n  - {kind: toy_language, name: language}\n"
            "  - {kind: sft, model: {create: {hidden_size: 32, num_heads: 2, num_layers: 1, "
            "intermediate_size: 48}},\n     data: {train: stage:language/sft.jsonl}}\n"
            "  - kind: ppo\n    model: {stage: sft}\n"
            "    data: {train: stage:language/prompts_train.jsonl}\n"
            "    rewards: {parts: [{kind: length, max: 9}]}\n    learner: ",
            learner,
            "\n    ppo: {critic: {optimizer: ",
            critic,
            "}}\n"));
    const JobConfig job = JobConfig::read(document);
    REQUIRE(document->errors() == std::vector<std::string>{});
    return plan_job(job).at(2).networks;
  };
  const auto plain = bytes("{}");
  REQUIRE(plain.size() == 3);  // policy, reference, critic
  const int64_t policy = plain[0].parameters, critic = plain[2].parameters;
  CHECK(plain[0].weight_bytes() == 4 * policy);
  CHECK(plain[0].optimizer_bytes() == 8 * policy);
  const auto half = bytes("{precision: bfloat16, optimizer: {state_dtype: bfloat16}}");
  CHECK(half[0].weight_bytes() == 6 * policy);
  CHECK(half[0].gradient_bytes() == 4 * policy);
  CHECK(half[0].optimizer_bytes() == 4 * policy);
  CHECK(half[1].weight_bytes() == 2 * policy);
  CHECK(half[2].weight_bytes() == 6 * critic);
  CHECK(half[2].optimizer_bytes() == 8 * critic);  // whose optimizer is its own
  const auto others = bytes("{optimizer: {kind: adafactor}}", "{kind: sgd}");
  CHECK(others[2].optimizer_bytes() == 0);
  // Four matrices of 32 x 32, gate and up of 48 x 32, down of 32 x 48, the embedding of V x 32,
  // three norms of 32; a float for each row and column.
  const int64_t vocabulary = toy_language_vocabulary();
  CHECK(policy == 4 * 32 * 32 + 3 * 48 * 32 + vocabulary * 32 + 3 * 32);
  CHECK(others[0].whole_states == 4 * (4 * 64 + 3 * 80 + vocabulary + 32));
  CHECK(others[0].optimizer_bytes() == others[0].whole_states + 4 * 3 * 32);
  StagePlan ranks{.networks = {others[0]}, .learner_ranks = 4};
  CHECK(ranks.rank_bytes() == 8 * policy + 3 * 32 + others[0].whole_states);
}

TEST_CASE("a probe computes in float32", "[actors][cpu]") {
  const auto document = YamlDocument::parse(
      "name: probed\nstages:\n  - {kind: toy_language, name: language}\n"
      "  - kind: attribute_probe\n    model: {create: {hidden_size: 32}}\n"
      "    data: {train: stage:language/attributes.jsonl}\n"
      "    learner: {precision: bfloat16}\n"
      "    attribute_probe: {attributes: {kindness: 1}}\n");
  JobConfig::read(document);
  REQUIRE(document->errors().size() == 1);
  CHECK_THAT(document->errors()[0],
             Catch::Contains("job.yaml:7:26: stages[1].learner.precision: attribute_probe finds"));
}

TEST_CASE("a group of parameters that has none is an error of the job file", "[actors][cpu]") {
  const auto document = YamlDocument::parse(
      "name: toy\nstages:\n  - {kind: toy_language, name: language}\n"
      "  - kind: sft\n    model: {create: {hidden_size: 32}}\n"
      "    data: {train: stage:language/sft.jsonl}\n"
      "    learner:\n      optimizer:\n        groups:\n"
      "          - {match: q_proj}\n          - {match: layers.0.self_attn.q_proj}\n"
      "          - {match: norms}\n");
  JobConfig::read(document);
  REQUIRE(document->errors().size() == 2);
  CHECK_THAT(document->errors()[0],
             Catch::Contains("job.yaml:11:21: stages[1].learner.optimizer.groups[1].match: no "
                             "parameter is left for \"layers.0.self_attn.q_proj\""));
  CHECK_THAT(document->errors()[1], Catch::Contains("\"norms\"; they have names such as model."));
}

}  // namespace praetor
