#include "reward/models/answer_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "tests/reward/language_model.h"
#include "tests/support/catch.h"

namespace praetor {

namespace {

const std::vector<std::string> kQuestions = {"Once upon a time",
                                             "Is the dog happy?\n",
                                             "Tom had a dog. The dog liked to run and play.",
                                             "Hi"};

AnswerModelConfig answers(const std::string& positive, const std::string& negative) {
  AnswerModelConfig config;
  config.positive = positive;
  config.negative = negative;
  return config;
}

}  // namespace

TEST_CASE("an answer is read from the logits where it would begin", "[reward][cpu]") {
  const at::NoGradGuard no_grad;
  const testing::LanguageModelFolder folder;
  const auto model = AnswerModel::load(folder.path(), answers("B", "M"));
  const auto results = model->ask(kQuestions);
  const Transformer network = Transformer::load(folder.path());
  const auto tokenizer = Tokenizer::load(folder.path());
  const int64_t b = tokenizer->encode("B", false).at(0), m = tokenizer->encode("M", false).at(0);
  for (size_t i = 0; i < kQuestions.size(); ++i) {
    const auto ids = model->tokens(kQuestions[i]);
    CHECK(ids == tokenizer->encode(kQuestions[i]));
    const at::Tensor logits = network.logits(network.hidden(pack({ids})))[-1];
    const double gap = (logits[b] - logits[m]).item<double>();
    CHECK(*results[i].probability == Approx(1 / (1 + std::exp(-gap))).margin(1e-6));
    CHECK(std::abs(*results[i].probability - 0.5) > 1e-4);  // the model has an opinion
  }
  // The other way round is the other answer.
  const auto swapped = AnswerModel::load(folder.path(), answers("M", "B"))->ask(kQuestions);
  for (size_t i = 0; i < kQuestions.size(); ++i)
    CHECK(*swapped[i].probability + *results[i].probability == Approx(1.0).margin(1e-12));
}

TEST_CASE("a trained model answers as in transformers", "[reward][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const auto model = AnswerModel::load(shared / "data" / "stories260K", answers("B", "M"));
  // sigmoid(logits[-1, 368] - logits[-1, 392]) of transformers 5.23.0, torch 2.11.0, float32 on
  // CPU.
  const std::vector<std::pair<std::string, double>> cases = {{"Once upon a time", 0.0388399},
                                                             {"Is the dog happy?\n", 0.4555929},
                                                             {"Tom had a dog. Good?", 0.3160571}};
  for (const auto& [question, probability] : cases) {
    INFO(question);
    const auto result = model->ask(std::vector<std::string>{question}).at(0);
    CHECK(*result.probability == Approx(probability).margin(1e-5));
  }
}

TEST_CASE("an answer has the same bits in any batch", "[reward][cpu]") {
  const testing::LanguageModelFolder folder;
  const auto together = AnswerModel::load(folder.path(), answers("B", "M"))->ask(kQuestions);
  for (const int64_t batch_tokens : {1, 20}) {
    AnswerModelConfig config = answers("B", "M");
    config.batch_tokens = batch_tokens;
    const auto results = AnswerModel::load(folder.path(), config)->ask(kQuestions);
    for (size_t i = 0; i < kQuestions.size(); ++i)
      CHECK(*results[i].probability == *together[i].probability);
  }
}

TEST_CASE("a question that is too long is an error, and its neighbours go on", "[reward][cpu]") {
  const testing::LanguageModelFolder folder;
  AnswerModelConfig config = answers("B", "M");
  config.max_length = 10;
  const auto results = AnswerModel::load(folder.path(), config)->ask(kQuestions);
  CHECK_THAT(results[2].error, Catch::EndsWith(" tokens, more than max_length 10"));
  CHECK_FALSE(results[2].probability);
  CHECK(results[3].probability);
}

TEST_CASE("a folder or an answer that does not fit is refused", "[reward][cpu]") {
  const testing::LanguageModelFolder folder;
  const auto load = [&](const AnswerModelConfig& config) {
    return AnswerModel::load(folder.path(), config);
  };
  CHECK_THROWS_WITH(load(answers("A", "B")),
                    Catch::Contains("the answer \"A\" is 2 tokens (") &&
                        Catch::EndsWith("one that is a single token is wanted"));
  CHECK_THROWS_AS(load(answers("A", "B")), DataError);
  CHECK_THROWS_WITH(load(answers("B", " B")), Catch::Contains("the same token"));
  AnswerModelConfig config = answers("B", "M");
  config.max_length = 161;
  CHECK_THROWS_WITH(load(config), Catch::Contains("max_length 161 is more than the model's 160"));
  CHECK_THROWS_WITH(AnswerModel::load(testing::golden("reward/llama"), answers("B", "M")),
                    Catch::Contains("not a language model"));
  CHECK_THROWS_AS(AnswerModel::load("tests/golden/nowhere", answers("B", "M")), MissingInput);
}

}  // namespace praetor
