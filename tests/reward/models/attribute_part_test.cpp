#include "reward/models/attribute_part.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/data/direction.h"
#include "core/model/transformer.h"
#include "reward/scorer.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

/// The golden reward model with two heads: its own, called kind, and -1/2 of it, called long.
class Folder {
 public:
  Folder() {
    fs::copy(testing::golden("reward/llama"), path(), fs::copy_options::recursive);
    ScalarModel model = ScalarModel::load(path(), testing::stream(1));
    model.head.weight = at::cat({model.head.weight, -0.5 * model.head.weight});
    model.labels = {"kind", "long"};
    save_hf(model, path());
  }
  fs::path path() const { return dir_ / "m"; }
  void describe() const {
    RewardFile{.mean = 0,
               .std = 1,
               .attributes = {{.name = "kind", .weight = 2, .mean = 1, .std = 4},
                              {.name = "long", .weight = -1, .mean = 0, .std = 0.5}}}
        .write(path());
  }

 private:
  testing::TempDir dir_;
};

/// Golden samples and the scores of their one head.
std::vector<std::pair<Sample, double>> cases() {
  std::vector<std::pair<Sample, double>> out;
  std::ifstream file(testing::golden("reward/llama.jsonl"));
  for (std::string line; std::getline(file, line);) {
    const auto row = nlohmann::json::parse(line);
    Sample sample;
    sample.prompt = row["prompt"];
    sample.response = row["response"];
    out.emplace_back(std::move(sample), row["score"].get<double>());
  }
  return out;
}

std::vector<Sample> samples() {
  std::vector<Sample> out;
  for (const auto& [sample, score] : cases()) out.push_back(sample);
  return out;
}

std::vector<BatchResult> score(const AttributePart& part, const std::vector<Sample>& samples) {
  std::vector<BatchItem> items;
  for (const Sample& sample : samples) items.push_back({.sample = &sample, .rivals = {}});
  return part.score(items);
}

AttributePartConfig config_of(const std::string& yaml) {
  const auto document = YamlDocument::parse("stage: x\n" + yaml);
  YamlReader in = document->root();
  AttributePartConfig config = AttributePartConfig::from_yaml(in);
  document->throw_if_errors();
  return config;
}

std::vector<BatchResult> scores_of(const Folder& folder, const std::string& yaml = "") {
  return score(*AttributePart::load(folder.path(), config_of(yaml)), samples());
}

}  // namespace

TEST_CASE("attributes are weighed by the folder, or as the part says", "[reward][cpu]") {
  const Folder folder;
  // Without more than its labels' names, every attribute has weight 1.
  const auto plain = scores_of(folder);
  folder.describe();
  const auto own = scores_of(folder);
  const auto given = scores_of(folder, "weights: {long: 3}");
  const auto all = cases();
  for (size_t i = 0; i < all.size(); ++i) {
    const double s = all[i].second;
    CHECK(*plain[i].score == Approx(0.5 * s).margin(4e-5));
    CHECK(*own[i].score == Approx(2 * s + 0.5 * s).margin(1e-4));
    CHECK(*given[i].score == Approx(-1.5 * s).margin(1e-4));
    REQUIRE(own[i].attributes.size() == 2);
    CHECK(own[i].attributes[0].name == "kind");
    CHECK(own[i].attributes[0].value == Approx(s).margin(4e-5));
    CHECK(own[i].attributes[1].weight == -1);
    CHECK(given[i].attributes[0].weight == 0);
    CHECK_FALSE(own[i].verdict);
  }
}

TEST_CASE("attributes are rescaled by the model's own moments or by given numbers",
          "[reward][cpu]") {
  const Folder folder;
  CHECK_THROWS_AS(scores_of(folder, "rescale: {from_model: true}"), MissingInput);
  folder.describe();
  const auto raw = scores_of(folder);
  const auto own = scores_of(folder, "rescale: {from_model: true}");
  // HelpSteer's: (score - 10) / 20.
  const auto given = scores_of(folder, "rescale: {mean: 10, std: 20}");
  for (size_t i = 0; i < raw.size(); ++i) {
    const double kind = raw[i].attributes[0].value, length = raw[i].attributes[1].value;
    CHECK(own[i].attributes[0].value == (kind - 1) / 4);
    CHECK(own[i].attributes[1].value == length / 0.5);
    CHECK(*own[i].score == Approx(2 * (kind - 1) / 4 - length / 0.5));
    CHECK(given[i].attributes[1].value == (length - 10) / 20);
  }
}

TEST_CASE("a row's direction weighs the attributes it is about", "[reward][cpu]") {
  const Folder folder;
  const auto part = AttributePart::load(folder.path(), config_of("direction: [long, kind]"));
  auto rows = samples();
  rows.resize(3);
  rows[0].metadata = with_direction("{}", direction_at(-30));
  rows[1].metadata = R"({"direction": [1, 0]})";
  const auto results = score(*part, rows);
  const double s = cases()[0].second;
  // In the order of the direction: what v1 weighs is first.
  CHECK(results[0].attributes[0].name == "long");
  CHECK(results[0].attributes[0].weight == direction_at(-30)[0]);
  CHECK(*results[0].score == Approx(0.866025 * -0.5 * s - 0.5 * s).margin(1e-4));
  CHECK(*results[1].score == results[1].attributes[0].value);
  CHECK(results[2].error == "the row has no \"direction\" that is a list of 2 numbers");
  CHECK_FALSE(results[2].score);
}

TEST_CASE("a gate weighs by the prompt, and weights or a direction overrule it", "[reward][cpu]") {
  const Folder folder;
  AttributeGate gate = AttributeGate::make(
      ModelConfig::load(folder.path()).hidden_size, 2, 1, 8, testing::stream(5));
  gate.weights[1].mul_(200);
  gate.verbosity = 1;
  gate.correction = at::tensor({0.25F, 1.0F});
  gate.save(folder.path());
  const auto gated = scores_of(folder);
  const auto fixed = scores_of(folder, "weights: {kind: 1}");
  const auto all = cases();
  bool differs = false;
  for (size_t i = 0; i < all.size(); ++i) {
    const double s = all[i].second;
    // r' = s - 0.25 (-s / 2), and nothing of the attribute that is taken out.
    CHECK(gated[i].attributes[0].value == Approx(1.125 * s).margin(1e-4));
    CHECK(gated[i].attributes[1].value == Approx(0).margin(1e-6));
    CHECK(*gated[i].score == Approx(gated[i].attributes[0].weight * 1.125 * s).margin(1e-4));
    CHECK(gated[i].attributes[0].weight + gated[i].attributes[1].weight == Approx(1));
    CHECK(*fixed[i].score == Approx(1.125 * s).margin(1e-4));
    differs = differs || gated[i].attributes[0].weight != gated[0].attributes[0].weight;
  }
  CHECK(differs);
  CHECK_THROWS_WITH(scores_of(folder, "rescale: {mean: 0, std: 2}"),
                    Catch::Contains("the folder's gate was trained on the attributes as they are"));
}

TEST_CASE("the same prompt has the same gate, whatever the response and the batch",
          "[reward][cpu]") {
  const Folder folder;
  AttributeGate::make(ModelConfig::load(folder.path()).hidden_size, 2, 1, 8, testing::stream(5))
      .save(folder.path());
  const auto part = AttributePart::load(folder.path(), config_of("batch_tokens: 8"));
  const std::vector<Sample> two = {{.prompt = "Hi there", .response = " Yes"},
                                   {.prompt = "Hi there", .response = ""},
                                   {.prompt = "Go", .response = " away"}};
  const auto results = score(*part, two);
  CHECK(results[0].attributes[0].weight == results[1].attributes[0].weight);
  CHECK(results[0].attributes[0].value != results[1].attributes[0].value);
  CHECK(results[0].attributes[0].weight != results[2].attributes[0].weight);
}

TEST_CASE("attributes that the model has not are answered with those it has", "[reward][cpu]") {
  const Folder folder;
  CHECK_THROWS_WITH(scores_of(folder, "weights: {kinds: 1}"),
                    Catch::Contains("weights: there is no attribute \"kinds\", did you mean "
                                    "\"kind\"; the model has kind, long"));
  CHECK_THROWS_WITH(scores_of(folder, "direction: [kind, speed]"),
                    Catch::Contains("direction: there is no attribute \"speed\"; the model has "));
  RewardFile{.mean = 0, .std = 1, .attributes = {{.name = "kind"}}}.write(folder.path());
  CHECK_THROWS_AS(scores_of(folder), DataError);
  for (const char* broken :
       {R"({"mean": 0, "std": 1, "attributes": 1})",
        R"({"mean": 0, "std": 1, "attributes": [{"weight": 1}]})",
        R"({"mean": 0, "std": 1, "attributes": [{"name": "a", "weight": "1"}]})"}) {
    write_file_atomic(folder.path() / "praetor_reward.json", broken);
    CHECK_THROWS_AS(scores_of(folder), DataError);
  }
  CHECK_THROWS_WITH(RewardModel::load(folder.path(), {}),
                    Catch::Contains("2 labels, which a part of kind attributes reads"));
}

TEST_CASE("keys of an attributes part that say nothing usable are named", "[reward][cpu]") {
  const auto errors = [](const std::string& yaml) {
    const auto document = YamlDocument::parse("stage: x\n" + yaml);
    YamlReader in = document->root();
    AttributePartConfig::from_yaml(in);
    return document->errors().size();
  };
  CHECK(errors("weights: {}") == 1);
  CHECK(errors("weights: {a: b}") == 1);
  CHECK(errors("direction: [a]") == 1);
  CHECK(errors("direction: [a, a]") == 1);
  CHECK(errors("direction: [a, b]\nweights: {a: 1}") == 1);
  CHECK(errors("rescale: {mean: 1}") == 1);
  CHECK(errors("weights: {a: 1}\nrescale: {from_model: true}") == 0);
}

TEST_CASE("attributes are a part of a mixture and are counted by name", "[reward][cpu]") {
  const Folder folder;
  const auto document = YamlDocument::parse(
      "parts: [{name: quality, kind: attributes, stage: trained, weight: 2, weights: {kind: 1}},\n"
      "        {kind: sum, parts: [{kind: length, unit: characters, min: 1}]}]");
  const RewardConfig config = RewardConfig::from_yaml(document->root());
  document->throw_if_errors();
  CHECK(config.parts[0].folder()->attributes);
  const auto scorer = Scorer::make(config, [&](const std::string&) { return folder.path(); });
  const auto scores = scorer->score(samples());
  double sum = 0;
  for (const auto& [sample, score] : cases()) sum += score;
  const auto metrics = part_metrics(scorer->counters());
  const auto found =
      std::ranges::find(metrics, "reward/quality/kind", [](const auto& one) { return one.first; });
  REQUIRE(found != metrics.end());
  CHECK(found->second == Approx(sum / 8).margin(1e-4));
  CHECK(std::ranges::count(
            metrics, "reward/quality/long", [](const auto& one) { return one.first; }) == 1);
  CHECK_FALSE(config.parts[0].gives_verdict());
  CHECK(scores[0].parts[0].attributes.size() == 2);
}

}  // namespace praetor
