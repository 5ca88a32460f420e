#include "reward/models/preference.h"

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "reward/scorer.h"
#include "tests/reward/language_model.h"
#include "tests/reward/parts.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::response;

namespace {

constexpr const char* kGenerative =
    "form: generative, text: '{prompt} One: {a} Two: {b} Better:', answers: [B, M]";

PreferenceConfig config_of(const std::string& keys) {
  const auto document = YamlDocument::parse("{stage: s, " + keys + "}", "r.yaml");
  YamlReader in = document->root();
  PreferenceConfig config = PreferenceConfig::from_yaml(in);
  in.reject_unknown_keys();
  document->throw_if_errors();
  return config;
}

const std::vector<std::string> kTexts = {"Tom had a dog.", "She was sad", "He ran and ran."};

/// Each of kTexts against the other two.
struct Round {
  Round() {
    for (size_t i = 0; i < kTexts.size(); ++i) {
      samples.push_back(response(kTexts[i]));
      samples.back().prompt = "Once";
      for (size_t j = 0; j < kTexts.size(); ++j) {
        if (j != i) rivals[i].push_back({static_cast<int32_t>(j), kTexts[j]});
      }
    }
  }
  std::vector<BatchResult> play(const PreferencePart& part) const {
    std::vector<BatchItem> items;
    for (size_t i = 0; i < samples.size(); ++i) items.push_back({&samples[i], rivals[i]});
    return part.score(items);
  }
  std::vector<Sample> samples;
  std::vector<Rival> rivals[3];
};

}  // namespace

TEST_CASE("a judge of pairs is made fair by asking both ways", "[reward][cpu]") {
  CHECK(symmetrised(0.7, 0.6) == Approx(0.55).margin(1e-12));
  CHECK(symmetrised(0.6, 0.7) == Approx(0.45).margin(1e-12));
  CHECK(symmetrised(0.9, 0.9) == 0.5);  // a taste for the first place alone
}

TEST_CASE("a language model prefers by its answer, in both orders", "[reward][cpu]") {
  const testing::LanguageModelFolder folder;
  const PreferenceConfig config = config_of(kGenerative);
  const Round round;
  const auto results = round.play(*PreferencePart::load(folder.path(), config));
  const auto model = AnswerModel::load(folder.path(), *config.generative);
  const auto first = [&](const std::string& a, const std::string& b) {
    const std::vector<std::string> question = {"Once One: " + a + " Two: " + b + " Better:"};
    return *model->ask(question)[0].probability;
  };
  for (size_t i = 0; i < 3; ++i) {
    REQUIRE(results[i].preferences.size() == 2);
    double sum = 0;
    for (const Preference& one : results[i].preferences) {
      const std::string& other = kTexts[static_cast<size_t>(one.rival)];
      CHECK(one.probability == symmetrised(first(kTexts[i], other), first(other, kTexts[i])));
      sum += one.probability;
    }
    CHECK(*results[i].score == sum / 2);
    CHECK(results[i].verdict == (sum / 2 > 0.5));
  }
  // P(a > b) + P(b > a) = 1.
  CHECK(results[0].preferences[0].probability + results[1].preferences[0].probability ==
        Approx(1.0).margin(1e-12));
}

TEST_CASE("a language model is asked what training shows it", "[reward][cpu]") {
  const testing::LanguageModelFolder folder;
  const PreferenceConfig config = config_of(kGenerative);
  const auto model = AnswerModel::load(folder.path(), *config.generative);
  const auto tokenizer = Tokenizer::load(folder.path());
  Row row;
  row.prompt = "Once";
  row.chosen = kTexts[0];
  row.rejected = kTexts[1];
  const auto answers = answer_tokens(config.question.answers, *tokenizer);
  const auto examples = pair_question_examples(row, config.question, answers, *tokenizer, {});
  auto asked = model->tokens("Once One: " + kTexts[0] + " Two: " + kTexts[1] + " Better:");
  asked.push_back(answers[0]);
  CHECK(examples[0].tokens == asked);
}

TEST_CASE("a reward model prefers by the difference of two scores", "[reward][cpu]") {
  const auto folder = testing::golden("reward/llama");
  const Round round;
  const auto results = round.play(*PreferencePart::load(folder, config_of("form: scalar")));
  const auto rewards = RewardModel::load(folder, {})->score(round.samples);
  for (size_t i = 0; i < 3; ++i) {
    for (const Preference& one : results[i].preferences) {
      const double gap = *rewards[i].score - *rewards[static_cast<size_t>(one.rival)].score;
      CHECK(one.probability == Approx(1 / (1 + std::exp(-gap))).margin(1e-12));
    }
  }
  // Whatever the order of a normaliser's numbers, its scale is that of the comparison.
  const auto halved = round.play(
      *PreferencePart::load(folder, config_of("form: scalar, normalise: {mean: 3, std: 2}")));
  const double gap = (*rewards[0].score - *rewards[1].score) / 2;
  CHECK(halved[0].preferences[0].probability == Approx(1 / (1 + std::exp(-gap))).margin(1e-12));
}

TEST_CASE("a sample against itself is undecided, and without rivals nothing is said",
          "[reward][cpu]") {
  const testing::LanguageModelFolder folder;
  const auto part = PreferencePart::load(folder.path(), config_of(kGenerative));
  const Sample sample = response("He ran.");
  const std::vector<Rival> same = {{4, "He ran."}};
  const auto results = part->score(std::vector<BatchItem>{{&sample, same}, {&sample, {}}});
  REQUIRE(results[0].preferences.size() == 1);
  CHECK((results[0].preferences[0] == Preference{4, 0.5}));
  CHECK(results[0].score == 0.5);
  CHECK(results[0].verdict == false);  // a tie is no victory
  CHECK(results[1].not_applicable);
  CHECK(results[1].score == 0.0);
  CHECK_FALSE(results[1].verdict);
  CHECK(results[1].preferences.empty());
}

TEST_CASE("one rival that cannot be compared is an error that names it", "[reward][cpu]") {
  const testing::LanguageModelFolder folder;
  const auto part =
      PreferencePart::load(folder.path(), config_of(std::string(kGenerative) + ", max_length: 60"));
  const Sample sample = response("He ran.");
  const std::vector<Rival> broken = {{1, "fine"}, {2, "\xff"}, {3, "fine"}};
  const std::vector<Rival> endless = {{7, std::string(200, 'x')}};
  const std::vector<Rival> good = {{1, "fine"}};
  const auto results =
      part->score(std::vector<BatchItem>{{&sample, broken}, {&sample, endless}, {&sample, good}});
  CHECK(results[0].error == "rival 2: the response is not valid UTF-8");
  CHECK(results[0].preferences.empty());
  CHECK_FALSE(results[0].score);
  CHECK_THAT(results[1].error,
             Catch::StartsWith("rival 7: ") && Catch::EndsWith("more than max_length 60"));
  CHECK(results[2].preferences.size() == 1);
}

TEST_CASE("a mixture hands its preferences on", "[reward][cpu]") {
  const auto document = YamlDocument::parse(
      "parts:\n"
      "  - {name: better, kind: preference, form: scalar, stage: rm, weight: 2}\n"
      "  - {kind: length, min: 0}\n");
  const RewardConfig config = RewardConfig::from_yaml(document->root());
  document->throw_if_errors();
  const auto scorer =
      Scorer::make(config, [](const std::string&) { return testing::golden("reward/llama"); });
  const Round round;
  const auto scores =
      scorer->score(round.samples, std::vector<std::vector<Rival>>{round.rivals[0], {}, {}});
  REQUIRE(scores[0].preferences.size() == 2);
  const double mean =
      (scores[0].preferences[0].probability + scores[0].preferences[1].probability) / 2;
  CHECK(*scores[0].score == 2 * mean + 1);
  CHECK(scores[0].parts[0].verdict == (mean > 0.5));
  // Without rivals, as in an evaluation, the part adds nothing and the rest is scored.
  CHECK(scores[1].score == 1.0);
  CHECK(scores[1].preferences.empty());
  CHECK(scores[1].parts[0].not_applicable);
  CHECK(scorer->counters()[0].not_applicable == 2);
  std::map<std::string, double> metrics;
  for (const auto& [name, value] : part_metrics(scorer->counters())) metrics[name] = value;
  CHECK(metrics.at("reward/better/mean") == mean);
  CHECK(metrics.at("judge/better/na") == Approx(2.0 / 3));
  CHECK(scorer->score(round.samples)[0].score == 1.0);
}

}  // namespace praetor
