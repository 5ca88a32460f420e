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
       "scorer.py], or address: HOST:PORT of a service"},
      {"parts: [{kind: external, command: ['']}]",
       "r.yaml:1:35: parts[0].command: a program and its arguments are wanted, as in [python3, "
       "scorer.py], or address: HOST:PORT of a service"},
      {"parts: [{kind: external, address: '127.0.0.1:50051', command: [cat]}]",
       "r.yaml:1:35: parts[0].address: command is given as well; keep one of the two"},
      {"parts: [{kind: external, address: localhost}]",
       "r.yaml:1:35: parts[0].address: \"localhost\" is not HOST:PORT of a scorer that listens, as "
       "in localhost:50051"},
      {"parts: [{kind: external, address: 'localhost:99999', batch: 0}]",
       "r.yaml:1:35: parts[0].address: \"localhost:99999\" is not HOST:PORT of a scorer that "
       "listens, as in localhost:50051\n"
       "r.yaml:1:61: parts[0].batch: 0 is outside [1, 4096]"},
      {"parts: [{kind: external, address: 'localhost:1', processes: 2}]",
       "r.yaml:1:50: parts[0]: unknown key \"processes\"; known here: kind, name, use, weight, "
       "address, batch, threshold, timeout_ms, retries"},
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
       "r.yaml:1:16: parts[0].kind: unknown value \"lenght\", did you mean \"length\"? (one of " +
           join(part_kinds(), ", ") + ")"},
      {"parts: [{name: a, min: 1}]",
       "r.yaml:1:9: parts[0]: missing key \"kind\"; one of " + join(part_kinds(), ", ") +
           " is wanted"},
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
       "plain, chatml, llama3, model)"},
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

TEST_CASE("what a part is for, and what it may say of its failures, is checked", "[reward][cpu]") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"parts: [{kind: length, min: 1, use: constraint}]",
       "r.yaml:1:8: parts: at least one part with use: reward is needed"},
      {"parts: [{kind: length, min: 1}, {name: c, kind: length, min: 1, use: constrain}]",
       "r.yaml:1:70: parts[1].use: unknown value \"constrain\", did you mean \"constraint\"? (one "
       "of "
       "reward, constraint, monitor)"},
      {"parts: [{kind: length, min: 1}, {kind: model, stage: rm, use: constraint}]",
       "r.yaml:1:63: parts[1].use: a model gives no verdict, which a constraint needs"},
      {"parts: [{kind: length, min: 1}, {kind: regex, pattern: a, use: constraint, weight: 2}]",
       "r.yaml:1:84: parts[1].weight: has no effect with use: constraint; only use: reward enters "
       "the sum"},
      {"parts: [{kind: length, min: 1}, {kind: regex, pattern: a, use: monitor, weight: 0}]",
       "r.yaml:1:81: parts[1].weight: has no effect with use: monitor; only use: reward enters the "
       "sum"},
      {"parts: [{kind: length, min: 1}, {kind: regex, pattern: a, use: monitor, on_error: drop}]",
       "r.yaml:1:83: parts[1].on_error: has no effect with use: monitor, which never drops a "
       "sample"},
      {"parts: [{kind: length, min: 1}, {kind: regex, pattern: a, use: constraint, on_error: "
       "value}]",
       "r.yaml:1:86: parts[1].on_error: unknown value \"value\"; one of drop, fail, violated is "
       "wanted"},
      {"parts: [{kind: length, min: 1, on_error: violated}]",
       "r.yaml:1:42: parts[0].on_error: unknown value \"violated\"; one of drop, fail, value is "
       "wanted"},
      {"parts: [{kind: length, min: 1, on_error: value}]",
       "r.yaml:1:9: parts[0]: missing key \"error_value\"; a number is wanted"},
      {"parts: [{kind: length, min: 1, error_value: 1}]",
       "r.yaml:1:45: parts[0].error_value: has no effect; it needs on_error: value"},
      {"parts: [{kind: length, min: 1, on_error: drop, error_value: 1}]",
       "r.yaml:1:61: parts[0].error_value: has no effect with on_error: drop; it needs on_error: "
       "value"},
      {"parts: [{kind: length, min: 1, timeout_ms: 0, retries: 11}]",
       "r.yaml:1:44: parts[0].timeout_ms: 0 is outside [1, 600000]\n"
       "r.yaml:1:56: parts[0].retries: 11 is outside [0, 10]"},
      {"{cache_entries: -1, retries: -1, parts: [{kind: length, min: 1}]}",
       "r.yaml:1:17: cache_entries: -1 is outside [0, 100000000]\n"
       "r.yaml:1:30: retries: -1 is outside [0, 10]"},
  };
  for (const auto& [text, message] : cases) {
    INFO(text);
    CHECK(complaints(text) == message);
  }
  CHECK_THAT(complaints("parts: [{kind: model, stage: rm, timeout_ms: 5}]"),
             Catch::Contains("unknown key \"timeout_ms\""));
}

TEST_CASE("trees are read to any depth, and their slips have the path", "[reward][cpu]") {
  const RewardConfig config = read(R"(
parts:
  - kind: gate
    cap: -1
    parts:
      - name: either
        kind: any_of
        parts:
          - {name: a, kind: regex, pattern: a, on_error: violated}
          - {name: two, kind: k_of_n, k: 2, parts: [{name: b, kind: regex, pattern: b},
             {name: c, kind: regex, pattern: c}, {name: d, kind: regex, pattern: d}]}
    value: {kind: sum, parts: [{kind: model, stage: rm, weight: 3}, {kind: length, min: 1}]}
)");
  const PartConfig& gate = config.parts.at(0);
  REQUIRE(gate.tree);
  CHECK(gate.tree->kind == TreeKind::kGate);
  CHECK(gate.tree->cap == -1.0);
  REQUIRE(gate.children.size() == 2);
  CHECK(gate.children[0].tree->k == 1);
  CHECK(gate.children[0].children[0].on_error == OnError::kViolated);
  CHECK(gate.children[0].children[1].tree->k == 2);
  CHECK(gate.children[1].tree->kind == TreeKind::kSum);
  CHECK(gate.children[1].children[0].weight == 3.0);
  CHECK(gate.children[0].weight == 0.0);
  std::string names;
  for (const ListedPart& part : list_parts(config)) names += part.config->name + " ";
  CHECK(names == "gate either a two b c d sum model length ");
  CHECK(list_parts(config)[0].children == std::vector<size_t>{1, 7});

  const std::vector<std::pair<std::string, std::string>> cases = {
      {"parts: [{kind: all_of}]", "r.yaml:1:9: parts[0].parts: at least one part is needed"},
      {"parts: [{kind: k_of_n, parts: [{kind: regex, pattern: a}]}]",
       "r.yaml:1:9: parts[0]: missing key \"k\"; a whole number is wanted"},
      {"parts: [{kind: k_of_n, k: 2, parts: [{kind: regex, pattern: a}]}]",
       "r.yaml:1:27: parts[0].k: 2 is more than the 1 parts"},
      {"parts: [{kind: gate, parts: [{kind: regex, pattern: a}]}]",
       "r.yaml:1:9: parts[0]: missing key \"value\"; the part whose score the gate lets through is "
       "wanted"},
      {"parts: [{kind: any_of, parts: [{kind: all_of, parts: [{kind: model, stage: rm}]}]}]",
       "r.yaml:1:62: parts[0].parts[0].parts[0].kind: a model gives no verdict, which counts here"},
      {"parts: [{kind: any_of, parts: [{kind: sum, parts: [{kind: model, stage: rm}]}]}]",
       "r.yaml:1:39: parts[0].parts[0].kind: a sum gives no verdict, which counts here"},
      {"parts: [{kind: all_of, parts: [{kind: regex, pattern: a, weight: 2, use: monitor}]}]",
       "r.yaml:1:66: parts[0].parts[0].weight: has no effect here; within a tree, only the parts "
       "of "
       "a sum have weights\n"
       "r.yaml:1:74: parts[0].parts[0].use: has no effect within a tree; say it of the tree"},
      {"parts: [{kind: sum, parts: [{kind: regex, pattern: a, on_error: drop}]}]",
       "r.yaml:1:65: parts[0].parts[0].on_error: unknown value \"drop\"; one of value is wanted"},
      {"parts: [{kind: all_of, name: x, parts: [{kind: regex, pattern: a, name: x}]}]",
       "r.yaml:1:73: parts[0].parts[0].name: another part is named \"x\" already"},
      {"parts: [{kind: sum, parts: [{kind: preference, form: scalar, stage: rm}]}]",
       "r.yaml:1:36: parts[0].parts[0].kind: a preference stands by itself, not within a tree"},
  };
  for (const auto& [text, message] : cases) {
    INFO(text);
    CHECK(complaints(text) == message);
  }
}

TEST_CASE("tasks are read, and a row is told which are known", "[reward][cpu]") {
  const RewardConfig config = read(R"(
parts: [{kind: length, min: 1, use: monitor}]
task_field: area
tasks:
  math: {parts: [{kind: math_answer}]}
  chat: {parts: [{kind: regex, pattern: a}]}
)");
  REQUIRE(config.tasks.size() == 2);
  CHECK(config.tasks[0].name == "math");
  CHECK(config.task_of(R"({"area": "chat"})") == 1);
  CHECK_THROWS_WITH(config.task_of(R"({"area": "code"})"),
                    "unknown task \"code\"; one of math, chat is wanted");
  CHECK_THROWS_WITH(config.task_of(R"({"task": "chat"})"),
                    "the row has no field \"area\"; one of math, chat is wanted");
  CHECK_THROWS_WITH(config.task_of(R"({"area": 3})"),
                    "field \"area\" is a number; one of math, chat is wanted");
  CHECK_FALSE(read("parts: [{kind: length, min: 1}]").task_of("{}"));

  const std::vector<std::pair<std::string, std::string>> cases = {
      {"tasks: {a: {}}", "r.yaml:1:12: tasks.a.parts: at least one part is needed"},
      {"tasks: {}", "r.yaml:1:8: tasks: at least one task is needed"},
      {"tasks: {a/b: {parts: [{kind: length, min: 1}]}}",
       "r.yaml:1:14: tasks.a/b: the name of a task may hold letters, digits, \"_\", \"-\" and "
       "\".\" "
       "only"},
      {"tasks: {a: {parts: [{kind: length, min: 1}], part: 1}}",
       "r.yaml:1:46: tasks.a: unknown key \"part\", did you mean \"parts\"?"},
      {"tasks: {a: {parts: [{kind: length, min: 1}]}, b: {parts: [{kind: length, min: 1}]}}",
       "r.yaml:1:59: tasks.b.parts[0].name: another part is named \"length\" already"},
      {"{task_field: t, parts: [{kind: length, min: 1}]}",
       "r.yaml:1:2: unknown key \"task_field\""},
      {"{parts: [{kind: length, min: 1, use: monitor}], tasks: {a: {parts: []}}}",
       "r.yaml:1:68: tasks.a.parts: at least one part with use: reward is needed"},
  };
  for (const auto& [text, message] : cases) {
    INFO(text);
    CHECK_THAT(complaints(text), Catch::StartsWith(message));
  }
}

TEST_CASE("the keys of models that answer are read and checked", "[reward][cpu]") {
  const RewardConfig config = read(R"(
parts:
  - {kind: preference, form: generative, stage: judge, text: "{prompt}|{a}|{b}", answers: [X, Y]}
  - {name: safe, kind: llm_judge, stage: judge, use: constraint, positive: safe, negative: unsafe,
     text: "{categories}: {response} {reference}", reference: metadata.gold, missing: skip,
     categories: [one, two]}
)");
  const PreferenceConfig& preference = *config.parts[0].preference;
  CHECK(preference.generative->positive == "X");
  CHECK(preference.generative->negative == "Y");
  CHECK(config.parts[0].folder()->stage == "judge");
  CHECK_FALSE(config.parts[0].folder()->scalar);
  const LlmJudgeConfig& judge = *config.parts[1].llm_judge;
  CHECK(judge.categories == "one\ntwo");
  CHECK(judge.reference->name() == "metadata.gold");
  CHECK(config.parts[1].gives_verdict());
  CHECK(read("parts: [{kind: preference, form: scalar, stage: rm}]").parts[0].folder()->scalar);

  const std::string judged = "parts: [{kind: llm_judge, stage: s, positive: y, negative: n, text: ";
  const std::string pairs = "parts: [{kind: preference, form: generative, stage: s, text: ";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"parts: [{kind: llm_judge, stage: s}]",
       "r.yaml:1:9: parts[0]: missing key \"text\"; text is wanted\n"
       "r.yaml:1:9: parts[0]: missing key \"positive\"; text is wanted\n"
       "r.yaml:1:9: parts[0]: missing key \"negative\"; text is wanted"},
      {"parts: [{kind: llm_judge, stage: s, positive: y, negative: y, text: '{response}'}]",
       "r.yaml:1:60: parts[0].negative: is the positive answer as well"},
      {judged + "'{answer} {response}'}]",
       "r.yaml:1:69: parts[0].text: there is no {answer}; known here: {prompt}, {response}, "
       "{reference}, {categories}"},
      {judged + "'{response}', reference: metadata.a}]",
       "r.yaml:1:94: parts[0].reference: has no effect: the text has no {reference}"},
      {judged + "'{response}', categories: [a]}]",
       "r.yaml:1:95: parts[0].categories: has no effect: the text has no {categories}"},
      {judged + "'{response} {categories}'}]",
       "r.yaml:1:9: parts[0]: missing key \"categories\"; the text has {categories}, so a list is "
       "wanted"},
      {"parts: [{kind: preference, stage: s}]",
       "r.yaml:1:9: parts[0]: missing key \"form\"; one of generative, scalar is wanted"},
      {pairs + "'{a}'}]",
       "r.yaml:1:62: parts[0].text: holds one of the two replies only; {a} and {b} are wanted"},
      {pairs + "'{a}{b}', answers: [A]}]",
       "r.yaml:1:81: parts[0].answers: two different words are wanted: for {a}, then for {b}"},
      {pairs + "'{a}{b}', use: monitor}, {kind: length, min: 1}]",
       "r.yaml:1:77: parts[0].use: a preference is what the learner compares by; weight: 0 keeps "
       "it "
       "out of the score"},
      {"parts: [{kind: preference, form: scalar, stage: s}, {name: b, kind: preference, form: "
       "scalar, "
       "stage: s}]",
       "r.yaml:1:8: parts: more than one preference part; a sample's preferences are one model's"},
  };
  for (const auto& [text, message] : cases) {
    INFO(text);
    CHECK_THAT(complaints(text), Catch::StartsWith(message));
  }
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
