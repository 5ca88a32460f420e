#include "reward/reward_config.h"

#include <string>
#include <utility>
#include <vector>

#include "core/base/fs.h"
#include "core/base/text.h"
#include "reward/judges/registry.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

/// All messages for a section, a line each.
std::string complaints(const std::string& text) {
  const auto document = YamlDocument::parse(text, "r.yaml");
  RewardConfig::from_yaml(document->root());
  std::string out;
  for (const std::string& error : document->errors()) out += (out.empty() ? "" : "\n") + error;
  return out;
}

RewardConfig read(const std::string& text) {
  const auto document = YamlDocument::parse(text, "r.yaml");
  RewardConfig config = RewardConfig::from_yaml(document->root());
  document->throw_if_errors();
  return config;
}

}  // namespace

TEST_CASE("a rewards section becomes parts with their weights", "[reward][cpu]") {
  const RewardConfig config = read(R"(
timeout_ms: 250
on_error: value
error_value: -1
parts:
  - {name: right, kind: math_answer, weight: 2, gold: metadata.gold}
  - {kind: length, weight: -0.5, min: 3}
  - {name: polite, kind: keywords, required: [please]}
  - {kind: regex, pattern: a}
)");
  CHECK(config.timeout == std::chrono::milliseconds(250));
  CHECK(config.on_error == OnError::kValue);
  CHECK(config.error_value == -1.0);
  REQUIRE(config.parts.size() == 4);
  CHECK(config.parts[0].name == "right");
  CHECK(config.parts[0].weight == 2.0);
  CHECK(config.parts[1].name == "length");  // the kind, where no name is given
  CHECK(config.parts[1].weight == -0.5);
  for (const PartConfig& part : config.parts) CHECK(part.judge);
}

TEST_CASE("defaults are two seconds and dropping", "[reward][cpu]") {
  const RewardConfig config = read("{parts: [{kind: length, min: 1}]}");
  CHECK(config.timeout == std::chrono::milliseconds(2000));
  CHECK(config.on_error == OnError::kDrop);
  CHECK(config.parts[0].weight == 1.0);
}

TEST_CASE("a reward model's keys are read", "[reward][cpu]") {
  const RewardConfig config = read(
      "parts: [{kind: model, stage: rm, template: chatml, max_length: 64, append_eos: false, "
      "batch_tokens: 100,\n"
      "         normalise: {mean: 0.5, std: 2}}]");
  REQUIRE(config.parts[0].model);
  const RewardModelConfig& model = *config.parts[0].model;
  CHECK_FALSE(config.parts[0].judge);
  CHECK(model.stage == "rm");
  CHECK(model.chat_template == "chatml");
  CHECK(model.max_length == 64);
  CHECK_FALSE(model.append_eos);
  CHECK(model.batch_tokens == 100);
  REQUIRE(model.normalise);
  CHECK(model.normalise->mean == 0.5);
  CHECK(model.normalise->std == 2.0);
  CHECK(read("parts: [{kind: model, stage: rm, normalise: {from_model: true}}]")
            .parts[0]
            .model->normalise->from_model);
  CHECK_FALSE(read("parts: [{kind: model, stage: rm}]").parts[0].model->normalise);
}

TEST_CASE("every slip of a rewards section is named with its place", "[reward][cpu]") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"parts: [{kind: instruction_following, instructions: prompt}]",
       "r.yaml:1:53: parts[0].instructions: \"prompt\" is not metadata.NAME"},
      {"parts: [{kind: instruction_following, mode: lose}]",
       "r.yaml:1:45: parts[0].mode: unknown value \"lose\", did you mean \"loose\"? (one of "
       "strict, "
       "loose)"},
      {"parts: [{kind: external}]",
       "r.yaml:1:9: parts[0].command: a program and its arguments are wanted, as in [python3, "
       "scorer.py]"},
      {"parts: [{kind: external, command: ['']}]",
       "r.yaml:1:35: parts[0].command: a program and its arguments are wanted, as in [python3, "
       "scorer.py]"},
      {"parts: [{kind: external, command: [cat], processes: 0}]",
       "r.yaml:1:53: parts[0].processes: 0 is outside [1, 64]"},
      {"parts: [{kind: external, command: [cat], start_timeout_ms: 0}]",
       "r.yaml:1:60: parts[0].start_timeout_ms: 0 is outside [1, 3600000]"},
      {"parts: [{kind: format, part: fences}]",
       "r.yaml:1:30: parts[0].part: unknown value \"fences\", did you mean \"fence\"? (one of "
       "response, fence, either)"},
      {"parts: [{kind: format, schema: '{\"oneOf\": []}'}]",
       "r.yaml:1:32: parts[0].schema: schema /: unknown keyword \"oneOf\""},
      {"parts: [{kind: format, schema: '{}', schema_field: metadata.form}]",
       "r.yaml:1:52: parts[0].schema_field: schema is given as well; keep one of the two"},
      {"parts: [{kind: format, schema_field: prompt}]",
       "r.yaml:1:38: parts[0].schema_field: \"prompt\" is not metadata.NAME"},
      {"parts: [{kind: quote}]",
       "r.yaml:1:9: parts[0]: a quote is of a corpus (a text file) or of a field; give one of the "
       "two"},
      {"parts: [{kind: quote, corpus: nowhere, field: metadata.a}]",
       "r.yaml:1:47: parts[0].field: a quote is of a corpus (a text file) or of a field; give one "
       "of the two"},
      {"parts: [{kind: quote, field: response}]",
       "r.yaml:1:30: parts[0].field: the response cannot be its own source"},
      {"parts: [{kind: quote, field: prompt}]",
       "r.yaml:1:30: parts[0].field: the prompt's n-grams do not count; exclude_prompt: false "
       "makes "
       "them"},
      {"parts: [{kind: quote, field: metadata.a, n: 0}]",
       "r.yaml:1:45: parts[0].n: 0 is outside [1, 1000]"},
      {"parts: [{kind: repetition, unit: lines}]",
       "r.yaml:1:34: parts[0].unit: unknown value \"lines\"; one of words, characters is wanted"},
      {"parts: [{kind: repetition, threshold: 2}]",
       "r.yaml:1:39: parts[0].threshold: 2 is outside [0, 1]"},
      {"{on_error: drop}", "r.yaml:1:1: parts: at least one part is needed"},
      {"parts: []", "r.yaml:1:8: parts: at least one part is needed"},
      {"parts: [{kind: lenght, min: 1}]",
       str("r.yaml:1:16: parts[0].kind: unknown value \"lenght\", did you mean \"length\"? (one of "
           "model, ",
           join(judge_kinds(), ", "),
           ")")},
      {"parts: [{name: a, min: 1}]",
       str("r.yaml:1:9: parts[0]: missing key \"kind\"; one of model, ",
           join(judge_kinds(), ", "),
           " is wanted")},
      {"parts: [{kind: regex, pattern: '(a'}]",
       "r.yaml:1:32: parts[0].pattern: missing closing parenthesis at byte 2 of \"(a\""},
      {"parts: [{kind: regex}]", "r.yaml:1:9: parts[0]: missing key \"pattern\"; text is wanted"},
      {"parts: [{kind: regex, pattern: a, field: metadata}]",
       "r.yaml:1:42: parts[0].field: \"metadata\" is not response, prompt or metadata.NAME"},
      {"parts: [{kind: regex, pattern: a, patern: b}]",
       "r.yaml:1:35: parts[0]: unknown key \"patern\", did you mean \"pattern\"?"},
      {"parts: [{kind: length, min: 12, max: 10}]",
       "r.yaml:1:29: parts[0].min: 12 is above max, which is 10"},
      {"parts: [{kind: length}]", "r.yaml:1:9: parts[0]: a length needs min, max or both"},
      {"parts: [{kind: length, min: -1}]", "r.yaml:1:29: parts[0].min: -1 is not >= 0"},
      {"parts: [{kind: length, max: 5, unit: word}]",
       "r.yaml:1:38: parts[0].unit: unknown value \"word\", did you mean \"words\"? (one of words, "
       "characters, tokens)"},
      {"parts: [{kind: length, max: 5, soft: -2}]",
       "r.yaml:1:38: parts[0].soft: -2 is outside [0, 1000000000]"},
      {"parts: [{kind: keywords}]",
       "r.yaml:1:9: parts[0]: keywords need required, forbidden or both"},
      {"parts: [{kind: keywords, required: []}]",
       "r.yaml:1:36: parts[0].required: there is no keyword to look for"},
      {"parts: [{kind: keywords, required: [a, ''], forbidden: [a]}]",
       "r.yaml:1:36: parts[0].required: a keyword is empty\n"
       "r.yaml:1:56: parts[0].forbidden: \"a\" is required as well"},
      {"parts: [{kind: math_answer, gold: response}]",
       "r.yaml:1:35: parts[0].gold: the response cannot be its own answer"},
      {"parts: [{kind: math_answer, extract: flexibel}]",
       "r.yaml:1:38: parts[0].extract: unknown value \"flexibel\", did you mean \"flexible\"? (one "
       "of strict, flexible, boxed)"},
      {"parts: [{kind: math_answer, marker: ''}]",
       "r.yaml:1:37: parts[0].marker: is empty or not UTF-8; a word such as \"####\" is wanted"},
      {"parts: [{kind: math_answer, format_score: 2}]",
       "r.yaml:1:43: parts[0].format_score: 2 is outside [0, 1]"},
      {"parts: [{kind: length, min: 1}, {kind: length, max: 3}]",
       "r.yaml:1:33: parts[1].name: another part is named \"length\" already"},
      {"parts: [{kind: length, min: 1, name: a/b}]",
       "r.yaml:1:38: parts[0].name: \"a/b\" may hold letters, digits, \"_\", \"-\" and \".\" only"},
      {"parts: [{kind: length, min: 1, weight: .inf}]",
       "r.yaml:1:40: parts[0].weight: infinite, but a finite number is wanted"},
      {"{timeout_ms: 0, parts: [{kind: length, min: 1}]}",
       "r.yaml:1:14: timeout_ms: 0 is outside [1, 600000]"},
      {"{on_error: ignore, parts: [{kind: length, min: 1}]}",
       "r.yaml:1:12: on_error: unknown value \"ignore\"; one of drop, fail, value is wanted"},
      {"{on_error: value, parts: [{kind: length, min: 1}]}",
       "r.yaml:1:1: missing key \"error_value\"; a number is wanted"},
      {"{error_value: 0, parts: [{kind: length, min: 1}]}",
       "r.yaml:1:15: error_value: has no effect with on_error: drop; it needs on_error: value"},
      {"{time_out_ms: 5, parts: [{kind: length, min: 1}]}",
       "r.yaml:1:2: unknown key \"time_out_ms\", did you mean \"timeout_ms\"?"},
      {"parts: [{kind: model}]",
       "r.yaml:1:9: parts[0]: a model needs path (a folder) or stage (the name of an earlier "
       "stage)"},
      {"parts: [{kind: model, path: tests/golden/reward/llama, stage: rm}]",
       "r.yaml:1:29: parts[0].path: stage is given as well; keep one of the two"},
      {"parts: [{kind: model, stage: rm, normalise: {}}]",
       "r.yaml:1:45: parts[0].normalise: missing key \"mean\"; a number is wanted\n"
       "r.yaml:1:45: parts[0].normalise: missing key \"std\"; a number is wanted"},
      {"parts: [{kind: model, stage: rm, normalise: {mean: 0, std: 0}}]",
       "r.yaml:1:60: parts[0].normalise.std: 0 is outside (0, 1000000000]"},
      {"parts: [{kind: model, stage: rm, normalise: {from_model: true, std: 1}}]",
       "r.yaml:1:58: parts[0].normalise.from_model: mean and std are given as well; keep one of "
       "the two"},
      {"parts: [{kind: model, stage: rm, template: chatlm}]",
       "r.yaml:1:44: parts[0].template: unknown value \"chatlm\", did you mean \"chatml\"? (one of "
       "plain, chatml, llama3)"},
      {"parts: [{kind: model, stage: rm, batch_tokens: 0}]",
       "r.yaml:1:48: parts[0].batch_tokens: 0 is not >= 1"},
  };
  for (const auto& [text, message] : cases) {
    INFO(text);
    CHECK(complaints(text) == message);
  }
}

TEST_CASE("a corpus that is not there is named before anything is scored", "[reward][cpu]") {
  CHECK_THAT(complaints("parts: [{kind: quote, corpus: nowhere}]"),
             Catch::StartsWith("r.yaml:1:31: parts[0].corpus: ") &&
                 Catch::EndsWith("nowhere is not a file"));
}

TEST_CASE("a model folder that is not there is named before anything is loaded", "[reward][cpu]") {
  CHECK_THAT(complaints("parts: [{kind: model, path: nowhere}]"),
             Catch::StartsWith("r.yaml:1:29: parts[0].path: ") &&
                 Catch::EndsWith("nowhere is not a model folder: it has no config.json"));
}

TEST_CASE("slips of several parts are reported together", "[reward][cpu]") {
  CHECK(complaints("time_out_ms: 5\n"
                   "parts:\n"
                   "  - {kind: regex, pattern: '['}\n"
                   "  - {kind: length, min: 3, max: 2, wieght: 1}\n") ==
        "r.yaml:1:1: unknown key \"time_out_ms\", did you mean \"timeout_ms\"?\n"
        "r.yaml:3:28: parts[0].pattern: missing terminating ] for character class at byte 1 of "
        "\"[\"\n"
        "r.yaml:4:25: parts[1].min: 3 is above max, which is 2\n"
        "r.yaml:4:36: parts[1]: unknown key \"wieght\", did you mean \"weight\"?");
}

}  // namespace praetor
