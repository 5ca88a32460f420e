#include "reward/models/llm_judge.h"

#include <filesystem>
#include <string>
#include <vector>

#include "core/base/fs.h"
#include "reward/scorer.h"
#include "tests/reward/language_model.h"
#include "tests/reward/parts.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::response;

namespace {

LlmJudgeConfig config_of(const std::string& keys) {
  const auto document = YamlDocument::parse("{stage: s, " + keys + "}", "r.yaml");
  YamlReader in = document->root();
  LlmJudgeConfig config = LlmJudgeConfig::from_yaml(in);
  in.reject_unknown_keys();
  document->throw_if_errors();
  return config;
}

std::vector<BatchResult> judged(const LlmJudge& judge, const std::vector<Sample>& samples) {
  std::vector<BatchItem> items;
  for (const Sample& sample : samples) items.push_back({&sample, {}});
  return judge.score(items);
}

}  // namespace

TEST_CASE("a response is judged by the answer to a question about it", "[reward][cpu]") {
  const testing::LanguageModelFolder folder;
  const auto keys = [](const std::string& words) {
    return words +
           ", text: '{categories}: {prompt} {response} ({reference})', categories: [x, y], "
           "reference: metadata.gold";
  };
  const LlmJudgeConfig config = config_of(keys("positive: B, negative: M"));
  Sample sample = response("He ran.", R"({"gold": "park"})");
  sample.prompt = "Tom had a dog.";
  const auto judge = LlmJudge::load(folder.path(), config);
  const BatchResult result = judged(*judge, {sample}).at(0);
  const auto answer = AnswerModel::load(folder.path(), config.model)
                          ->ask(std::vector<std::string>{"x\ny: Tom had a dog. He ran. (park)"})
                          .at(0);
  CHECK(*result.score == *answer.probability);
  CHECK(result.verdict == (*answer.probability > 0.5));
  CHECK_THAT(result.reason, Catch::StartsWith("P(B) = 0."));
  // The words exchanged, so is the verdict: one of the two passes.
  const auto other = LlmJudge::load(folder.path(), config_of(keys("positive: M, negative: B")));
  CHECK(judged(*other, {sample}).at(0).verdict == !*result.verdict);
}

TEST_CASE("a row without its reference is an error or passed over", "[reward][cpu]") {
  const testing::LanguageModelFolder folder;
  const std::string keys = "positive: B, negative: M, text: '{response} {reference}'";
  const std::vector<Sample> samples = {
      response("a"), response("a", R"({"reference": "b"})"), response("a", "[]")};
  const auto strict = judged(*LlmJudge::load(folder.path(), config_of(keys)), samples);
  CHECK(strict[0].error == "the row has no field metadata.reference");
  CHECK_FALSE(strict[0].score);
  CHECK(strict[1].score);
  CHECK(strict[2].error == "the metadata is not a JSON object: []");
  const auto lax =
      judged(*LlmJudge::load(folder.path(), config_of(keys + ", missing: skip")), samples);
  CHECK(lax[0].not_applicable);
  CHECK(lax[0].score == 0.0);
  CHECK_FALSE(lax[0].verdict);
  CHECK(lax[1].score == strict[1].score);
}

TEST_CASE("a model's verdict is a constraint like any other", "[reward][cpu]") {
  const testing::LanguageModelFolder folder;
  const auto document = YamlDocument::parse(
      "parts:\n"
      "  - {kind: length, min: 0}\n"
      "  - {kind: llm_judge, stage: j, use: constraint, text: '{response}', positive: B, negative: "
      "M}\n"
      "  - kind: all_of\n"
      "    name: both\n"
      "    use: constraint\n"
      "    parts: [{name: inner, kind: llm_judge, stage: j, text: '{response}', positive: B, "
      "negative: "
      "M}]\n");
  const RewardConfig config = RewardConfig::from_yaml(document->root());
  document->throw_if_errors();
  const auto scorer = Scorer::make(config, [&](const std::string&) { return folder.path(); });
  const auto scores = scorer->score(
      std::vector<Sample>{response("Tom had a dog."), response("She was sad"), response("\xff")});
  for (size_t i = 0; i < 2; ++i) {
    CHECK(scores[i].satisfied == scores[i].parts[1].verdict);
    CHECK(scores[i].parts[2].verdict == scores[i].parts[1].verdict);
    CHECK(scores[i].parts[2].score == scores[i].parts[3].score);
    CHECK(scores[i].score == 1.0);
  }
  CHECK(scores[2].parts[1].error == "the response is not valid UTF-8");
  CHECK_FALSE(scores[2].satisfied);
}

TEST_CASE("the judges that come along are sections that can be read", "[reward][cpu]") {
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator("configs/judges")) {
    if (entry.path().extension() != ".yaml") continue;
    CAPTURE(entry.path().string());
    const testing::TempDir dir;
    std::filesystem::copy_file(entry.path(), dir / "r.yaml");
    std::filesystem::create_directories(dir / "models" / "judge");
    write_file_atomic(dir / "models" / "judge" / "config.json", "{}");
    const auto document = YamlDocument::load(dir / "r.yaml");
    const RewardConfig config = RewardConfig::from_yaml(document->root());
    document->throw_if_errors();
    for (const PartConfig& part : config.parts) CHECK(part.folder());
    ++seen;
  }
  CHECK(seen == 4);
}

}  // namespace praetor
