#include "reward/models/reward_model.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "reward/models/reward_file.h"
#include "reward/scorer.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

struct Case {
  Sample sample;
  std::vector<int64_t> ids;
  double score = 0.0;
};

/// What transformers gives (tests/golden/make_reward.py).
std::vector<Case> golden_cases() {
  std::vector<Case> out;
  std::ifstream file(testing::golden("reward/llama.jsonl"));
  for (std::string line; std::getline(file, line);) {
    const auto row = nlohmann::json::parse(line);
    Case& one = out.emplace_back();
    one.sample.prompt = row["prompt"];
    one.sample.response = row["response"];
    one.ids = row["ids"].get<std::vector<int64_t>>();
    one.score = row["score"];
  }
  REQUIRE(out.size() == 8);
  return out;
}

std::vector<Sample> samples_of(const std::vector<Case>& cases) {
  std::vector<Sample> out;
  for (const Case& one : cases) out.push_back(one.sample);
  return out;
}

std::unique_ptr<RewardModel> load(const RewardModelConfig& config = {}) {
  return RewardModel::load(testing::golden("reward/llama"), config);
}

/// A copy of the golden folder that a test may spoil.
class Folder {
 public:
  Folder() { fs::copy(testing::golden("reward/llama"), dir_ / "m", fs::copy_options::recursive); }
  fs::path path() const { return dir_ / "m"; }
  /// Changes a JSON file of the folder by a merge patch.
  void patch(const std::string& name, const nlohmann::json& change) const {
    auto json = nlohmann::json::parse(read_file(path() / name));
    json.merge_patch(change);
    write_file_atomic(path() / name, json.dump());
  }

 private:
  testing::TempDir dir_;
};

}  // namespace

TEST_CASE("a sequence-classification folder scores as transformers does", "[reward][cpu]") {
  const auto cases = golden_cases();
  const auto model = load();
  const auto results = model->score(samples_of(cases));
  for (size_t i = 0; i < cases.size(); ++i) {
    INFO(cases[i].sample.prompt << "|" << cases[i].sample.response);
    CHECK(model->tokens(cases[i].sample) == cases[i].ids);
    REQUIRE(results[i].score);
    // float32, another order of sums, scores of about 1.
    CHECK(*results[i].score == Approx(cases[i].score).margin(2e-5));
  }
}

TEST_CASE("a score has the same bits in any batch", "[reward][cpu]") {
  const auto samples = samples_of(golden_cases());
  const auto together = load()->score(samples);
  const auto alone = load();
  for (size_t i = 0; i < samples.size(); ++i) {
    CHECK(*alone->score(std::vector<Sample>{samples[i]})[0].score == *together[i].score);
  }
  for (const int64_t batch_tokens : {1, 30, 64}) {
    RewardModelConfig config;
    config.batch_tokens = batch_tokens;
    const auto results = load(config)->score(samples);
    for (size_t i = 0; i < samples.size(); ++i) CHECK(*results[i].score == *together[i].score);
  }
  const std::vector<Sample> reversed(samples.rbegin(), samples.rend());
  const auto backwards = load()->score(reversed);
  for (size_t i = 0; i < samples.size(); ++i) {
    CHECK(*backwards[samples.size() - 1 - i].score == *together[i].score);
  }
}

TEST_CASE("the end token and the template are the model's, as configured", "[reward][cpu]") {
  Sample sample;
  sample.prompt = "Hi";
  sample.response = "Yes";
  RewardModelConfig config;
  config.append_eos = false;
  const auto bare = load(config)->tokens(sample);
  auto ended = load()->tokens(sample);
  CHECK(ended.back() == 2);
  ended.pop_back();
  CHECK(bare == ended);
  CHECK(bare.front() == 1);
  // Cut off by length or not, the model reads the end token it was trained with.
  sample.finished = false;
  CHECK(load()->tokens(sample).back() == 2);
  config.chat_template = "chatml";
  CHECK(load(config)->tokens(sample).size() > bare.size() + 10);
}

TEST_CASE("a sample that is too long is an error and not cut", "[reward][cpu]") {
  const auto cases = golden_cases();
  RewardModelConfig config;
  config.max_length = static_cast<int64_t>(cases[2].ids.size());
  const auto results = load(config)->score(samples_of(cases));
  CHECK(results[2].score == load()->score(samples_of(cases))[2].score);
  CHECK_FALSE(results[5].score);
  CHECK(results[5].error ==
        str(cases[5].ids.size(), " tokens, more than max_length ", config.max_length));
}

TEST_CASE("scores are normalised by given numbers or by the model's own", "[reward][cpu]") {
  const auto samples = samples_of(golden_cases());
  const auto raw = load()->score(samples);
  RewardModelConfig config;
  config.normalise = ScoreNormaliser{.from_model = false, .mean = 0.5, .std = 4.0};
  const auto given = load(config)->score(samples);
  const Folder folder;
  config.normalise = ScoreNormaliser{.from_model = true};
  CHECK_THROWS_AS(RewardModel::load(folder.path(), config), MissingInput);
  RewardFile{.mean = 0.5, .std = 4.0, .attributes = {}}.write(folder.path());
  const auto own = RewardModel::load(folder.path(), config)->score(samples);
  for (size_t i = 0; i < samples.size(); ++i) {
    CHECK(*given[i].score == (*raw[i].score - 0.5) / 4.0);
    CHECK(own[i].score == given[i].score);
  }
  for (const char* broken :
       {"{", "[]", "{\"mean\": 1}", "{\"mean\": \"1\", \"std\": 1}", "{\"mean\": 1, \"std\": 0}"}) {
    INFO(broken);
    write_file_atomic(folder.path() / "praetor_reward.json", broken);
    CHECK_THROWS_AS(RewardModel::load(folder.path(), config), DataError);
  }
}

TEST_CASE("a folder that is no reward model is refused", "[reward][cpu]") {
  CHECK_THROWS_AS(RewardModel::load("tests/golden/nowhere", {}), MissingInput);
  {
    const Folder folder;  // a language model has no score to give
    folder.patch("config.json", {{"architectures", {"LlamaForCausalLM"}}});
    CHECK_THROWS_WITH(RewardModel::load(folder.path(), {}), Catch::Contains("not a reward model"));
  }
  {
    const Folder folder;
    folder.patch("config.json", {{"id2label", {{"0", "A"}, {"1", "B"}}}});
    CHECK_THROWS_AS(RewardModel::load(folder.path(), {}), DataError);
  }
  {
    const Folder folder;
    folder.patch("config.json", {{"eos_token_id", nullptr}});
    folder.patch("tokenizer_config.json", {{"eos_token", nullptr}});
    fs::remove(folder.path() / "special_tokens_map.json");
    CHECK_THROWS_WITH(RewardModel::load(folder.path(), {}), Catch::Contains("names an end token"));
    RewardModelConfig without;
    without.append_eos = false;
    CHECK(RewardModel::load(folder.path(), without));
  }
  {
    const Folder folder;
    fs::remove(folder.path() / "tokenizer.json");
    CHECK_THROWS_AS(RewardModel::load(folder.path(), {}), MissingInput);
  }
  RewardModelConfig config;
  config.max_length = 161;
  CHECK_THROWS_WITH(load(config),
                    Catch::Contains("max_length 161 is more than the model's 160 positions"));
}

TEST_CASE("a model is a part of a mixture, by path or by an earlier stage", "[reward][cpu]") {
  const auto cases = golden_cases();
  const auto document = YamlDocument::parse(
      "parts: [{name: rm, kind: model, stage: trained, weight: 2, max_length: 50},\n"
      "        {kind: length, unit: characters, min: 1}]");
  const RewardConfig config = RewardConfig::from_yaml(document->root());
  document->throw_if_errors();
  std::string asked;
  const auto scorer = Scorer::make(config, [&](const std::string& stage) {
    asked = stage;
    return testing::golden("reward/llama");
  });
  CHECK(asked == "trained");
  auto samples = samples_of(cases);
  samples.insert(samples.begin(), Sample{});
  samples.front().response = "\xff";
  const auto scores = scorer->score(samples);
  CHECK(scores[0].parts[0].error == "the response is not valid UTF-8");
  CHECK(*scores[1].score == Approx(2 * cases[0].score + 1).margin(1e-4));
  CHECK(*scores[4].score == Approx(2 * cases[3].score).margin(1e-4));  // an empty response
  CHECK_FALSE(scores[8].score);
  CHECK(scores[8].parts[0].error == str(cases[7].ids.size(), " tokens, more than max_length 50"));
  CHECK_FALSE(scores[1].parts[0].verdict);
  CHECK(scorer->counters()[0].scored == 7);
  CHECK(scorer->counters()[0].errors == 2);
  for (const auto& [name, value] : part_metrics(scorer->counters())) {
    CHECK(name != "judge/rm/pass");  // a model gives no verdict
    CHECK(name != "judge/rm/timeout");
  }
}

}  // namespace praetor
