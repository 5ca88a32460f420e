#include <cmath>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/config/yaml_reader.h"
#include "rollout/engine_config.h"
#include "rollout/sampling_config.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

std::string first_error(const std::string& yaml, bool sampling) {
  const auto document = YamlDocument::parse(yaml);
  if (sampling) {
    sampling_from_yaml(document->root());
  } else {
    EngineConfig::from_yaml(document->root());
  }
  return document->errors().empty() ? "" : document->errors().front();
}

std::string refusal(const SamplingParams& params) {
  try {
    check_sampling(params, "request 4");
  } catch (const InvalidArgument& failure) {
    return failure.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a sampling section is read key by key", "[rollout][cpu]") {
  const auto document = YamlDocument::parse(
      "max_new_tokens: 64\ntemperature: 0.7\ntop_k: 50\ntop_p: 0.9\nmin_p: 0.05\n"
      "repetition_penalty: 1.1\nstop: ['\\n', END]\nstop_token_ids: [3, 4]\nignore_eos: true\n");
  const SamplingParams p = sampling_from_yaml(document->root());
  CHECK_NOTHROW(document->throw_if_errors());
  CHECK(p.max_new_tokens == 64);
  CHECK(p.temperature == 0.7);
  CHECK(p.top_k == 50);
  CHECK(p.top_p == 0.9);
  CHECK(p.min_p == 0.05);
  CHECK(p.repetition_penalty == 1.1);
  CHECK(p.stop_strings == std::vector<std::string>{"\\n", "END"});
  CHECK(p.stop_tokens == std::vector<int64_t>{3, 4});
  CHECK(p.ignore_eos);
}

TEST_CASE("an empty sampling section has the defaults of SamplingParams", "[rollout][cpu]") {
  const auto document = YamlDocument::parse("{}");
  const SamplingParams p = sampling_from_yaml(document->root());
  CHECK_NOTHROW(document->throw_if_errors());
  CHECK(p.max_new_tokens == SamplingParams{}.max_new_tokens);
  CHECK(p.temperature == 1.0);
  CHECK(p.top_p == 1.0);
}

TEST_CASE("sampling values out of range are named with their place", "[rollout][cpu]") {
  using Catch::Matchers::Contains;
  CHECK_THAT(first_error("max_new_tokens: 0", true), Contains("job.yaml:1:") && Contains(">= 1"));
  CHECK_THAT(first_error("temperature: -0.5", true), Contains("temperature: -0.5"));
  CHECK_THAT(first_error("temperature: 0.0001", true), Contains("0 is greedy"));
  CHECK_THAT(first_error("top_k: -1", true), Contains("top_k: -1"));
  CHECK_THAT(first_error("top_p: 0", true), Contains("(0, 1]"));
  CHECK_THAT(first_error("min_p: 1", true), Contains("[0, 1)"));
  CHECK_THAT(first_error("repetition_penalty: 0", true), Contains("repetition_penalty"));
  CHECK_THAT(first_error("stop: ['']", true), Contains("stop"));
  CHECK_THAT(first_error("stop_token_ids: [-3]", true), Contains("-3"));
  CHECK_THAT(first_error("temprature: 1", true), Contains("temperature"));
}

TEST_CASE("keys of a sampling section become processors, in their order", "[rollout][cpu]") {
  const auto document = YamlDocument::parse(
      "processors: [{kind: regex, pattern: 'a+'}, {kind: logit_bias, bias: {7: -1}}]\n"
      "json_schema: {type: object, properties: {b: {type: integer}, a: {enum: [x, '1', 1.5]}}}\n"
      "regex: '\\d+'\nfrequency_penalty: -0.5\npresence_penalty: 1\n"
      "logit_bias: {3: 2.5, 1: -100}\nallowed_tokens: [4, 5]\n"
      "bad_words: [no, [1, 2]]\nmin_new_tokens: 3\n");
  const SamplingParams p = sampling_from_yaml(document->root());
  CHECK_NOTHROW(document->throw_if_errors());
  const std::vector<ProcessorSpec> wanted = {
      {"min_new_tokens", R"({"tokens":3})"},
      {"bad_words", R"({"words":["no",[1,2]]})"},
      {"allowed_tokens", R"({"ids":[4,5]})"},
      {"logit_bias", R"({"bias":{"3":2.5,"1":-100}})"},
      {"presence_penalty", R"({"penalty":1.0})"},
      {"frequency_penalty", R"({"penalty":-0.5})"},
      {"regex", R"({"pattern":"\\d+"})"},
      {"json_schema",
       R"({"schema":{"type":"object","properties":{"b":{"type":"integer"},)"
       R"("a":{"enum":["x","1",1.5]}}}})"},
      {"regex", R"({"pattern":"a+"})"},
      {"logit_bias", R"({"bias":{"7":-1}})"}};
  REQUIRE(p.processors.size() == wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    CHECK(p.processors[i].kind == wanted[i].kind);
    CHECK(p.processors[i].options == wanted[i].options);
  }
  CHECK_NOTHROW(check_processors(p, "job"));
  // What is written back is read as the same.
  const auto again = YamlDocument::parse(document->resolved());
  CHECK((sampling_from_yaml(again->root()).processors == p.processors));
}

TEST_CASE("keys of processors that stand for nothing make none", "[rollout][cpu]") {
  const auto document = YamlDocument::parse(
      "min_new_tokens: 0\nbad_words: []\nallowed_tokens: []\nlogit_bias: {}\n"
      "presence_penalty: 0\nfrequency_penalty: 0\nprocessors: []\n");
  CHECK(sampling_from_yaml(document->root()).processors.empty());
  CHECK_NOTHROW(document->throw_if_errors());
}

TEST_CASE("processors with wrong options are named with their place", "[rollout][cpu]") {
  using Catch::Matchers::Contains;
  CHECK_THAT(first_error("regex: 'a('", true),
             Contains("job.yaml:1:8: regex: regex: pattern: offset 1"));
  CHECK_THAT(first_error("json_schema: {type: object, propertis: {}}", true),
             Contains("json_schema") && Contains("#/propertis: this keyword"));
  CHECK_THAT(first_error("logit_bias: {a: 1}", true), Contains("\"a\" is no token id"));
  CHECK_THAT(first_error("logit_bias: [1]", true), Contains("a mapping of token ids"));
  CHECK_THAT(first_error("bad_words: word", true), Contains("a list of texts"));
  CHECK_THAT(first_error("allowed_tokens: [-1]", true), Contains("-1 is no token id"));
  CHECK_THAT(first_error("presence_penalty: 2.5", true), Contains("[-2, 2]"));
  CHECK_THAT(first_error("max_new_tokens: 4\nmin_new_tokens: 5", true),
             Contains("5 is above max_new_tokens, 4"));
  CHECK_THAT(first_error("processors: [{kind: regx, pattern: a}]", true),
             Contains("processors[0].kind") && Contains("regex"));
  CHECK_THAT(first_error("processors: [{pattern: a}]", true), Contains("missing key \"kind\""));
  CHECK_THAT(first_error("processors:\n  - {kind: regex, patern: a}", true),
             Contains("job.yaml:2:") && Contains("pattern: is missing"));
}

TEST_CASE("an engine section is read and its limits fit each other", "[rollout][cpu]") {
  using Catch::Matchers::Contains;
  const auto document = YamlDocument::parse(
      "max_sequences: 8\nmax_step_tokens: 100\nblock_size: 32\ncache_bytes: 2000000\n"
      "draft_tokens: 5\nweights: int8\n");
  const EngineConfig c = EngineConfig::from_yaml(document->root());
  CHECK_NOTHROW(document->throw_if_errors());
  CHECK(c.max_sequences == 8);
  CHECK(c.max_step_tokens == 100);
  CHECK(c.block_size == 32);
  CHECK(c.cache_bytes == 2000000);
  CHECK(c.draft_tokens == 5);
  CHECK(c.weights == WeightKind::kInt8);
  CHECK(EngineConfig{}.weights == WeightKind::kFloat32);
  CHECK_THAT(first_error("weights: int7", false),
             Contains("weights: ") && Contains("did you mean \"int8\"?"));
  CHECK_THAT(first_error("max_sequences: 8\nmax_step_tokens: 4", false),
             Contains("job.yaml:2:") && Contains("less than max_sequences, 8"));
  CHECK_THAT(first_error("block_size: 0", false), Contains("block_size: 0"));
  CHECK_THAT(first_error("cache_bytes: 10", false), Contains("cache_bytes: 10"));
  CHECK_THAT(first_error("block_sise: 8", false), Contains("block_size"));
}

TEST_CASE("parameters of a request out of range are named", "[rollout][cpu]") {
  using Catch::Matchers::Contains;
  CHECK(refusal({}).empty());
  CHECK_THAT(refusal({.max_new_tokens = 0}), Contains("request 4: max_new_tokens: 0"));
  CHECK_THAT(refusal({.temperature = -1}), Contains("temperature: -1"));
  CHECK_THAT(refusal({.temperature = 1e-5}), Contains("0.001"));
  CHECK_THAT(refusal({.temperature = std::nan("")}), Contains("temperature"));
  CHECK_THAT(refusal({.top_k = -2}), Contains("top_k: -2"));
  CHECK_THAT(refusal({.top_p = 1.5}), Contains("top_p: 1.5 is outside (0, 1]"));
  CHECK_THAT(refusal({.min_p = 1.0}), Contains("min_p: 1"));
  CHECK_THAT(refusal({.repetition_penalty = 0.0}), Contains("repetition_penalty: 0"));
  CHECK_THAT(refusal({.stop_tokens = {-1}}), Contains("-1"));
  CHECK_THAT(refusal({.top_logprobs = 21}), Contains("top_logprobs: 21 is outside [0, 20]"));
  CHECK_THAT(refusal({.stop_strings = {"a", ""}}), Contains("stop"));
  CHECK_THAT(refusal({.stop_strings = {"\xff"}}), Contains("UTF-8"));
}

}  // namespace praetor
