#include "reward/reward_config.h"

#include <string>
#include <utility>
#include <vector>

#include "core/base/fs.h"
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
      {"{}", "PLACEHOLDER"},
  };
  for (const auto& [text, message] : cases) {
    INFO(text);
    CHECK(complaints(text) == message);
  }
}

}  // namespace praetor
