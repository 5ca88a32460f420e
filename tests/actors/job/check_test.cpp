#include "actors/job/check.h"

#include <filesystem>

#include "actors/rpc/tls.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/str.h"
#include "core/base/text.h"
#include "tests/reward/language_model.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

namespace fs = std::filesystem;

std::string check(const fs::path& file, const std::vector<std::string>& overrides = {}) {
  return join(check_job(JobConfig::read(file, overrides)), "\n");
}

/// A job of one sft stage on the stories model, with its own data file.
fs::path story_job(const testing::TempDir& dir, const fs::path& shared) {
  write_file_atomic(
      dir / "train.jsonl",
      "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"c\", \"completion\": \"d\"}\n");
  write_file_atomic(dir / "job.yaml",
                    "name: stories\nkind: sft\nmodel: {path: \"" +
                        (shared / "data" / "stories260K").string() +
                        "\"}\ndata: {train: train.jsonl}\nsft: {batch_size: 2}\n");
  return dir / "job.yaml";
}

}  // namespace

TEST_CASE("a job on a real model folder passes, and its lengths follow the model",
          "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const testing::TempDir dir;
  const fs::path file = story_job(dir, shared);
  const JobConfig job = load_checked_job(file);
  CHECK(job.stages[0].data.format.max_length == 512);
  CHECK(job.stages[0].tokenizer.path == job.stages[0].model.source.path);
  CHECK(job.stages[0].total_steps(*count_rows(job, job.stages[0].data.train, RowForm::kCompletion),
                                  2) == 1);
  CHECK(check(file, {"data.max_length=513"}) ==
        "--set data.max_length=513: data.max_length: 513 is more than the model's 512 positions");
}

TEST_CASE("certificates of the user's own are looked at before anything runs", "[actors][cpu]") {
  const testing::TempDir dir, run;
  const TlsFiles made = make_run_certificates(run.path());
  const auto job = [&](const std::string& network) {
    write_file_atomic(
        dir / "job.yaml",
        "name: j\nnetwork: " + network + "\nstages:\n  - {kind: toy_language, name: language}\n");
    return check(dir / "job.yaml");
  };
  const std::string key = "key: " + made.key.string() + ", ca: " + made.ca.string();
  CHECK(job("{bind: 0.0.0.0, advertise: node-7}").empty());
  CHECK_THAT(job("{certificate: none.pem, " + key + "}"),
             Catch::Contains(":2:24: network.certificate: " + (dir / "none.pem").string()));
  // A member's certificate that the run itself made is neither a server's nor this host's.
  const std::string found =
      job("{bind: 0.0.0.0, advertise: node-7, certificate: " + made.certificate.string() + ", " +
          key + "}");
  CHECK_THAT(found, Catch::Contains("is not meant for TLS servers"));
  CHECK_THAT(found, Catch::Contains("is not valid for node-7"));
}

TEST_CASE("every broken row of the data is named by file and line, at the key of the file",
          "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const testing::TempDir dir;
  const fs::path file = story_job(dir, shared);
  write_file_atomic(dir / "train.jsonl",
                    "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"c\"}\nnot json\n");
  const std::string head = file.string() + ":4:15: data.train: " + (dir / "train.jsonl").string();
  const std::string found = check(file);
  CAPTURE(found);
  CHECK(found.find(head + ":2: ") != std::string::npos);
  CHECK(found.find(head + ":3: ") != std::string::npos);
  CHECK(found.find(head + ":1: ") == std::string::npos);
  write_file_atomic(dir / "train.jsonl", "");
  CHECK(check(file).find("train.jsonl") != std::string::npos);
}

TEST_CASE("a tokenizer with more tokens than the model has embeddings does not fit",
          "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const testing::TempDir dir;
  const fs::path file = story_job(dir, shared);
  const fs::path gpt2 = shared / "data" / "tokenizer-gpt2";
  CHECK(check(file, {"tokenizer.path=" + gpt2.string()}) ==
        "--set tokenizer.path=" + gpt2.string() + ": tokenizer.path: the tokenizer in " +
            gpt2.string() + " has 50257 tokens, more than the model's 512 embeddings");
}

TEST_CASE("a model folder without configuration or weights is told at its key", "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const testing::TempDir dir;
  const fs::path file = story_job(dir, shared);
  const fs::path folder = dir / "model";
  const std::string set = "model.path=" + folder.string();
  const std::string head = "--set " + set + ": model.path: ";
  CHECK(check(file, {set}) == head + "no such folder: " + folder.string());
  fs::create_directory(folder);
  CHECK(check(file, {set}).find(head + (folder / "config.json").string()) == 0);
  for (const char* name : {"config.json", "tokenizer.json", "tokenizer_config.json"}) {
    fs::copy_file(shared / "data" / "stories260K" / name, folder / name);
  }
  CHECK(check(file, {set}) ==
        head + folder.string() +
            " has no weights: model.safetensors, or model.safetensors.index.json, is wanted");
  write_file_atomic(folder / "model.safetensors", "");
  CHECK(check(file, {set}) == "");
  write_file_atomic(folder / "config.json", "{");
  CHECK(check(file, {set}).find(head) == 0);
}

TEST_CASE("the checks of several stages and the reading are reported together", "[actors][cpu]") {
  const testing::TempDir dir;
  write_file_atomic(dir / "job.yaml",
                    "name: two\nsede: 1\nstages:\n"
                    "  - {kind: sft, model: {path: m}, data: {train: a.jsonl}}\n"
                    "  - {kind: sft, name: b, data: {train: b.jsonl, shufle: true}}\n");
  const std::string at = (dir / "job.yaml").string();
  const std::string in = dir.path().string();
  CHECK(check(dir / "job.yaml") ==
        at + ":2:1: unknown key \"sede\", did you mean \"seed\"?\n" + at +
            ":4:31: stages[0].model.path: no such folder: " + in + "/m\n" + at +
            ":4:49: stages[0].data.train: no such file: " + in + "/a.jsonl\n" + at +
            ":5:40: stages[1].data.train: no such file: " + in + "/b.jsonl\n" + at +
            ":5:49: stages[1].data: unknown key \"shufle\", did you mean \"shuffle\"?");
}

TEST_CASE("answers that the tokenizer cuts are told before anything runs", "[actors][cpu]") {
  const testing::TempDir dir;
  const testing::LanguageModelFolder folder;
  write_file_atomic(dir / "pairs.jsonl",
                    "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}\n");
  write_file_atomic(dir / "job.yaml",
                    "name: j\nkind: preference_model\nmodel: {path: \"" + folder.path().string() +
                        "\"}\ndata: {train: pairs.jsonl}\n"
                        "preference_model: {batch_size: 1, answers: [A, B]}\n");
  const fs::path file = dir / "job.yaml";
  CHECK_THAT(check(file),
             Catch::StartsWith(file.string() + ":5:44: preference_model.answers: the answer \"A\" "
                                               "is 2 tokens ("));
  CHECK(check(file, {"preference_model.answers=[B, M]"}) == "");
}

TEST_CASE("a preference model of the job is asked what it was taught", "[actors][cpu]") {
  const testing::TempDir dir;
  write_file_atomic(
      dir / "job.yaml",
      "name: j\nstages:\n"
      "  - {kind: toy_language, name: l}\n"
      "  - {kind: sft, model: {create: {hidden_size: 32}}, data: {train: stage:l/sft.jsonl}}\n"
      "  - {kind: preference_model, data: {train: stage:l/pairs.jsonl},\n"
      "     preference_model: {text: '{prompt}|{a}|{b}', answers: [X, Y]}}\n"
      "  - kind: nash_md\n"
      "    data: {train: stage:l/prompts_train.jsonl}\n"
      "    nash_md: {preference: pairwise}\n"
      "    rewards: {parts: [{kind: preference, form: generative, stage: preference_model,\n"
      "      text: '{prompt}|{a}|{b}', answers: [X, Y]}]}\n");
  const fs::path file = dir / "job.yaml";
  CHECK(check(file) == "");
  const std::string key = "stages.nash_md.rewards.parts[0].";
  CHECK_THAT(
      check(file, {key + "text='{b}|{a}'"}),
      Catch::EndsWith("parts[0].text: is not what stage \"preference_model\" was trained on: "
                      "\"{prompt}|{a}|{b}\""));
  CHECK_THAT(check(file, {key + "answers=[Y, X]"}),
             Catch::EndsWith("stage \"preference_model\" was trained to answer X or Y"));
}

TEST_CASE("attributes are those of the model that gives them", "[actors][cpu]") {
  const testing::TempDir dir;
  const std::string head =
      "name: j\nstages:\n"
      "  - {kind: toy_language, name: l}\n"
      "  - {kind: sft, model: {create: {hidden_size: 32}}, data: {train: stage:l/sft.jsonl}}\n"
      "  - {kind: attribute_model, data: {train: stage:l/attributes.jsonl},\n"
      "     attribute_model: {attributes: {kindness: 1, verbosity: -1}}}\n"
      "  - {kind: attribute_gate, data: {train: stage:l/pairs.jsonl},\n"
      "     attribute_gate: {verbosity: verbosity}}\n"
      "  - kind: dpa\n"
      "    model: {stage: sft}\n"
      "    data: {train: stage:l/prompts_train.jsonl}\n";
  write_file_atomic(dir / "job.yaml",
                    head +
                        "    rewards: {parts: [{kind: attributes, stage: attribute_model, "
                        "direction: [kindness, verbosity]}]}\n");
  const fs::path file = dir / "job.yaml";
  CHECK(check(file) == "");
  const std::string part = "stages.dpa.rewards.parts[0].";
  CHECK_THAT(
      check(file, {part + "direction=[kindness, verbose]"}),
      Catch::EndsWith("direction: there is no attribute \"verbose\"; the model has kindness, "
                      "verbosity"));
  // A gate's attributes are those of the model below it.
  CHECK_THAT(check(file, {part + "stage=attribute_gate", part + "direction=[kind, verbosity]"}),
             Catch::EndsWith("the model has kindness, verbosity"));
  CHECK_THAT(
      check(file, {"stages.attribute_gate.attribute_gate.verbosity=length"}),
      Catch::EndsWith("attribute_gate.verbosity: there is no attribute \"length\"; the model "
                      "has kindness, verbosity"));
  CHECK_THAT(
      check(file, {"stages.attribute_model.attribute_model.attributes={kindness: 1, verbosty: 1}"}),
      Catch::Contains("attributes.verbosty: no row of data.train is labelled with it"));
  CHECK_THAT(check(file, {"stages.attribute_model.data.train=stage:l/sft.jsonl"}),
             Catch::Contains("data.train: sft.jsonl has no labels; attributes.jsonl has"));
  CHECK_THAT(check(file, {part + "direction=[kindness, verbosity, kindnes]"}),
             Catch::Contains("names 3 attributes, but dpa draws directions of two objectives"));
  CHECK_THAT(check(file, {"stages.dpa.rewards.parts=[{kind: length, min: 1}]"}),
             Catch::EndsWith("rewards.parts: dpa learns from one part of kind attributes with a "
                             "direction, for every sample and with use: reward; there is none"));
  CHECK_THAT(check(file, {"stages.dpa.rewards.parts=[{kind: model, stage: attribute_model}]"}),
             Catch::Contains("makes an attribute model, but a reward model is wanted"));
  CHECK_THAT(check(file, {"stages.attribute_gate.model={stage: sft}"}),
             Catch::Contains("makes a policy, but an attribute model is wanted"));
}

TEST_CASE("a probe takes every row in one step, from any backbone", "[actors][cpu]") {
  const testing::TempDir dir;
  const std::string head =
      "name: j\nstages:\n"
      "  - {kind: toy_language, name: l}\n"
      "  - {kind: sft, model: {create: {hidden_size: 32}}, data: {train: stage:l/sft.jsonl}}\n"
      "  - {kind: reward_model, data: {train: stage:l/pairs.jsonl}}\n"
      "  - {kind: attribute_probe, model: {stage: reward_model},\n"
      "     data: {train: stage:l/attributes.jsonl},\n"
      "     attribute_probe: {attributes: {kindness: 1, verbosity: -1}}}\n"
      "  - {kind: attribute_gate, data: {train: stage:l/pairs.jsonl},\n"
      "     attribute_gate: {verbosity: verbosity}}\n";
  const fs::path file = dir / "job.yaml";
  write_file_atomic(file, head);
  CHECK(check(file) == "");
  const std::string probe = "stages.attribute_probe.";
  CHECK(check(file, {probe + "model={stage: sft}"}) == "");
  CHECK(check(file, {probe + "steps=1"}) == "");
  CHECK_THAT(check(file, {probe + "model={stage: attribute_gate}"}),
             Catch::Contains("comes later"));
  CHECK_THAT(check(file, {probe + "steps=5"}),
             Catch::EndsWith("steps: attribute_probe takes every row at once, in its only step; "
                             "leave it out"));
  CHECK_THAT(check(file, {probe + "epochs=2"}), Catch::Contains("epochs: attribute_probe takes"));
  CHECK_THAT(check(file, {probe + "attribute_probe.alphas=[1, 0]"}),
             Catch::EndsWith("alphas: 0 is not above 0, as each must be"));
  CHECK_THAT(check(file, {probe + "attribute_probe.attributes={kindness: 1, kind: 1}"}),
             Catch::Contains("attributes.kind: no row of data.train is labelled with it"));
  CHECK_THAT(check(file, {"stages.attribute_gate.attribute_gate.verbosity=verbosty"}),
             Catch::EndsWith("there is no attribute \"verbosty\", did you mean \"verbosity\"; the "
                             "model has kindness, verbosity"));
}

TEST_CASE("labels of a file are numbers, and each of them stands somewhere", "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const testing::TempDir dir;
  write_file_atomic(dir / "rows.jsonl",
                    "{\"prompt\": \"a\", \"completion\": \"b\", \"good\": 1}\n"
                    "{\"prompt\": \"a\", \"completion\": \"c\", \"good\": null, \"long\": 2}\n");
  write_file_atomic(dir / "job.yaml",
                    "name: j\nkind: attribute_model\nmodel: {path: \"" +
                        (shared / "data" / "stories260K").string() +
                        "\"}\n"
                        "data: {train: rows.jsonl}\n"
                        "attribute_model: {batch_size: 2, attributes: {good: 1, long: 0.5}}\n");
  const fs::path file = dir / "job.yaml";
  CHECK(check(file) == "");
  CHECK_THAT(check(file, {"attribute_model.attributes.fast=1"}),
             Catch::EndsWith("attribute_model.attributes.fast: no row of data.train is labelled "
                             "with it"));
  write_file_atomic(dir / "rows.jsonl",
                    "{\"prompt\": \"a\", \"completion\": \"b\", \"good\": \"1\"}\n");
  CHECK_THAT(check(file, {"attribute_model.batch_size=1"}),
             Catch::EndsWith("rows.jsonl:1: \"good\" is string; a number is wanted, or nothing "
                             "where there is no label"));
}

TEST_CASE("every row names a task of the rewards, and only who compares has preferences",
          "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const testing::TempDir dir;
  write_file_atomic(dir / "p.jsonl",
                    "{\"prompt\": \"a\", \"task\": \"chat\"}\n{\"prompt\": \"b\", \"task\": "
                    "\"code\"}\n{\"prompt\": \"c\"}\n");
  write_file_atomic(dir / "job.yaml",
                    "name: j\nkind: ppo\nmodel: {path: \"" +
                        (shared / "data" / "stories260K").string() +
                        "\"}\n"
                        "data: {train: p.jsonl}\n"
                        "rewards:\n"
                        "  tasks:\n"
                        "    chat: {parts: [{kind: length, min: 1}]}\n"
                        "    math: {parts: [{kind: math_answer}]}\n"
                        "ppo: {prompts_per_step: 1}\n");
  const fs::path file = dir / "job.yaml";
  CHECK(check(file) == file.string() + ":4:15: data.train: " + (dir / "p.jsonl").string() +
                           ":2: unknown task \"code\"; one of chat, math is wanted");
  write_file_atomic(dir / "p.jsonl", "{\"prompt\": \"a\", \"task\": \"chat\"}\n");
  CHECK(check(file).empty());
  const std::string model = std::filesystem::absolute(testing::golden("reward/llama")).string();
  const std::string set = "rewards.parts=[{kind: preference, form: scalar, path: " + model + "}]";
  CHECK_THAT(check(file, {set}),
             Catch::EndsWith("rewards.parts[0].kind: ppo compares no responses, so that there is "
                             "nothing to prefer"));
  const std::string judge =
      "rewards.parts=[{kind: llm_judge, text: '{response}', positive: B, negative: M, max_length: "
      "600, path: " +
      (shared / "data" / "stories260K").string() + "}]";
  CHECK_THAT(check(file, {judge}),
             Catch::EndsWith("rewards.parts[0].max_length: 600 is more than the model's 512 "
                             "positions"));
}

TEST_CASE("learner ranks without a sequence are noted", "[actors][cpu]") {
  const auto notes = [](const std::string& ppo, const std::string& rest) {
    const JobConfig job = JobConfig::read(YamlDocument::parse(
        "name: j\nstages:\n  - {kind: toy_language, name: language}\n"
        "  - {kind: sft, model: {create: {}}, data: {train: stage:language/sft.jsonl}, "
        "sft: {batch_size: 64}}\n"
        "  - {kind: ppo, data: {train: stage:language/prompts_train.jsonl}, "
        "rewards: {parts: [{kind: length, max: 9}]}, " +
        ppo + "}\n" + rest));
    CHECK(join(job.document->errors(), "\n") == "");
    return join(notes_on(job), "\n");
  };
  const std::string few = "ppo: {prompts_per_step: 8, samples_per_prompt: 2, minibatches: 1}";
  const auto ranks = [](int count) {
    return str("placement: separate\nroles: {learner: {ranks: ", count, "}}\n");
  };
  CHECK(notes(few, ranks(40)) ==
        "stage ppo: an optimizer step has at most 16 responses, so that 24 of the 40 ranks of "
        "roles.learner.ranks have nothing to do in it; at most 16 ranks, or more responses a step, "
        "are wanted");
  CHECK(notes(few, ranks(16)) == "");
  CHECK(notes(few, "") == "");
  // Two ranks share each response; a step of four has a quarter of them.
  CHECK(notes(few + ", learner: {sharding: {tensor: 2}}", ranks(32)) == "");
  CHECK_THAT(notes("ppo: {prompts_per_step: 8, samples_per_prompt: 2, minibatches: 4}", ranks(16)),
             Catch::Contains("has at most 4 responses, so that 12 of the 16 ranks"));
  CHECK_THAT(notes(few, ranks(70)),
             Catch::Contains("stage sft: an optimizer step has at most 64 "
                             "rows, so that 6 of the 70 ranks"));
}

}  // namespace praetor
