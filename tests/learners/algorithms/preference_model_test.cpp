#include "learners/algorithms/preference_model.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "learners/learner.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::make_example;
using testing::metric;
using testing::vec;

namespace {

constexpr int64_t kA = 1, kB = 2;

/// The question about a chosen and a rejected response of one token each, in both orders.
void ask(std::vector<Example>& out, int64_t chosen, int64_t rejected) {
  out.push_back(make_example({chosen, rejected, 5}, {kA}));
  out.push_back(make_example({rejected, chosen, 5}, {kB}));
}

/// 3 is better than 4, 6 than 7, 8 than 9.
std::vector<Example> questions() {
  std::vector<Example> out;
  ask(out, 3, 4);
  ask(out, 6, 7);
  ask(out, 8, 9);
  return out;
}

Learner make_learner(PreferenceModelConfig config, int64_t micro_batch_tokens = 8192) {
  LearnerConfig settings;
  settings.optimizer.learning_rate = 5e-3;
  settings.micro_batch_tokens = micro_batch_tokens;
  LearnerModels models;
  models.policy = testing::tiny_policy();
  return Learner(settings, make_preference_model(std::move(config)), std::move(models));
}

}  // namespace

TEST_CASE("the likelihood of an answer has its worked values", "[learners][cpu]") {
  // z_A - z_B = 0.8: P = 0.689974.
  const AnswerLoss one = answer_loss(vec({0.3, 1.0}), vec({-0.5, 0.2}), 1);
  CHECK(one.loss.item<double>() == Approx(-std::log(0.689974)).margin(2e-6));
  CHECK(one.probability == Approx(0.689974).margin(1e-6));
  CHECK(one.correct == 2);
  CHECK(one.consistent == 1);

  // P_first(a, b) = 0.7 and P_first(b, a) = 0.6, a chosen: P(a > b) = 0.55; the answers disagree.
  const at::Tensor right = vec({0.7, 0.4}).log(), wrong = vec({0.3, 0.6}).log();
  const AnswerLoss two = answer_loss(right, wrong, 1);
  CHECK(two.probability == Approx(0.55).margin(1e-12));
  CHECK(two.loss.item<double>() == Approx(-(std::log(0.7) + std::log(0.4)) / 2).margin(1e-12));
  CHECK(two.correct == 1);
  CHECK(two.consistent == 0);
  CHECK(answer_loss(right, wrong, 4).loss.item<double>() ==
        Approx(two.loss.item<double>() / 4).margin(1e-12));
  // Both orders wrong is consistent as well; a tie is not.
  CHECK(answer_loss(wrong.slice(0, 0, 1).repeat(2), right.slice(0, 0, 1).repeat(2), 1).consistent ==
        1);
  const AnswerLoss tie = answer_loss(vec({0, 0}), vec({0, 0}), 1);
  CHECK(tie.consistent == 0);
  CHECK(tie.correct == 1);

  // Over the vocabulary the two answers need not share everything.
  const AnswerLoss open = answer_loss(vec({0.5, 0.2}).log(),
                                      vec({0.1, 0.3}).log(),
                                      1,
                                      {.vocabulary = true, .label_smoothing = 0.1});
  CHECK(open.loss.item<double>() ==
        Approx(-(0.9 * std::log(0.5 * 0.2) + 0.1 * std::log(0.1 * 0.3)) / 2).margin(1e-12));

  CHECK_THROWS_AS(answer_loss(vec({0}), vec({0}), 1), ShapeError);
  CHECK_THROWS_AS(answer_loss(vec({0, 0}), vec({0}), 1), ShapeError);
  CHECK_THROWS_AS(answer_loss(vec({0, 0}), vec({0, 0}), 0), InvalidArgument);
}

TEST_CASE("the gradient of an answer's likelihood is that of finite differences",
          "[learners][cpu]") {
  for (const bool vocabulary : {false, true}) {
    for (const double smoothing : {0.0, 0.2}) {
      const auto loss = [&](const at::Tensor& x) {
        return answer_loss(x.slice(0, 0, 4),
                           x.slice(0, 4, 8),
                           2,
                           {.vocabulary = vocabulary, .label_smoothing = smoothing})
            .loss;
      };
      const at::Tensor x = vec({-0.3, -1.2, -2, -0.7, -1.5, -0.4, -0.2, -0.7});
      CHECK(testing::gradient_error(loss, x) < 1e-8);
    }
  }
}

TEST_CASE("a preference model learns to name what was chosen wherever it stands",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const bool vocabulary : {false, true}) {
    Learner learner = make_learner({.loss = {.vocabulary = vocabulary}});
    const Metrics before = learner.evaluate(questions());
    const StepReport first = learner.update(questions());
    if (!vocabulary) CHECK(metric(first, "pm/loss") == Approx(before[0].second).epsilon(1e-5));
    CHECK(metric(first, "pm/accuracy") == before[1].second);
    CHECK(metric(first, "pm/order_consistency") == before[2].second);
    CHECK(metric(first, "pm/probability") == Approx(before[3].second).epsilon(1e-5));
    CHECK(metric(first, "pm/pairs") == 3);
    for (int step = 0; step < 150; ++step) learner.update(questions());
    const Metrics after = learner.evaluate(questions());
    CHECK(after[0].first == "loss");
    CHECK(after[0].second < 0.2);
    CHECK(after[1] == std::pair<std::string, double>{"accuracy", 1.0});
    CHECK(after[2] == std::pair<std::string, double>{"order_consistency", 1.0});
    CHECK(after[3].second > 0.8);
    CHECK(after[4] == std::pair<std::string, double>{"pairs", 3.0});
  }
}

TEST_CASE("the preference model's gradient does not depend on the micro-batch cut",
          "[learners][cpu]") {
  const auto weights_after = [](int64_t budget) {
    Learner learner = make_learner({}, budget);
    for (int step = 0; step < 3; ++step) learner.update(questions());
    return testing::flat_state(learner, true);
  };
  CHECK(testing::cut_error(weights_after) < 1e-5);
}

TEST_CASE("questions without their other order, or with two targets, are refused",
          "[learners][cpu]") {
  Learner learner = make_learner({});
  const Example half = make_example({3, 4, 5}, {kA});
  const Example wide = make_example({3, 4}, {5, kA});
  CHECK_THROWS_AS(learner.update({half}), InvalidArgument);
  CHECK_THROWS_AS(learner.evaluate({half}), InvalidArgument);
  CHECK_THROWS_AS(learner.update({wide, wide}), ShapeError);
  CHECK_THROWS_AS(learner.evaluate({wide, wide}), InvalidArgument);
  CHECK(learner.evaluate({}) == Metrics{{"pairs", 0}});
}

TEST_CASE("preference_model reads its section and asks about pairs", "[learners][cpu]") {
  const auto document = YamlDocument::parse(
      "batch_size: 0\nlabel_smoothing: 0.5\nnormalise_over: answer\ntext: '{a}'\nanswers: [A]\n");
  PreferenceModelConfig::from_yaml(document->root());
  CHECK(document->errors().size() == 5);
  const auto algorithm = make_preference_model({});
  CHECK(algorithm->sample_plan().rows == RowForm::kPreference);
  CHECK(algorithm->sample_plan().question.has_value());
  CHECK(algorithm->models().policy);
}

}  // namespace praetor
