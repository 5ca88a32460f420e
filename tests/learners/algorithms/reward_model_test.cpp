#include "learners/algorithms/reward_model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/base/error.h"
#include "learners/learner.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::make_example;
using testing::metric;

namespace {

/// Chosen responses end in 3, rejected ones in 4.
std::vector<Example> rows() {
  return {make_example({1, 2}, {5, 3}, 1),
          make_example({1, 2}, {6, 4}, 1),
          make_example({1}, {3}, 0.5),
          make_example({1}, {7, 8, 4}, 0.5)};
}

Learner make_learner(BradleyTerryConfig config) {
  LearnerConfig settings;
  settings.optimizer.learning_rate = 3e-3;
  LearnerModels models;
  models.scalar = testing::tiny_scalar();
  return Learner(settings, make_reward_model(config), std::move(models));
}

}  // namespace

TEST_CASE("the reward model's loss is Bradley and Terry's on the scores of last tokens",
          "[learners][cpu]") {
  Learner learner = make_learner({.margin = true, .centring = 0.01});
  const double wanted = [&] {
    const at::NoGradGuard no_grad;
    const at::Tensor s =
        learner.scalar().score(pack({{1, 2, 5, 3}, {1, 2, 6, 4}, {1, 3}, {1, 7, 8, 4}}));
    double loss = 0;
    for (int64_t i : {0, 2}) {
      const double w = s[i].item<double>(), l = s[i + 1].item<double>();
      loss += std::log1p(std::exp(-(w - l - (i == 0 ? 1 : 0.5)))) + 0.01 * (w + l) * (w + l);
    }
    return loss / 2;
  }();
  const StepReport report = learner.update(rows());
  CHECK(metric(report, "rm/loss") == Approx(wanted).epsilon(1e-5));
  CHECK(metric(report, "rm/pairs") == 2);
  CHECK(metric(report, "rm/score_max") >= metric(report, "rm/score_mean"));
  CHECK(metric(report, "rm/score_min") <= metric(report, "rm/score_mean"));
}

TEST_CASE("a reward model learns which response is preferred", "[learners][cpu]") {
  const testing::OneThread one_thread;
  Learner learner = make_learner({});
  for (int step = 0; step < 60; ++step) learner.update(rows());
  const Metrics metrics = learner.evaluate(rows());
  CHECK(metrics[1] == std::pair<std::string, double>{"accuracy", 1.0});
  CHECK(metrics[0].second < 0.2);
  CHECK(metrics[2].second > 1);
  // A pair it has not seen.
  const Metrics unseen =
      learner.evaluate({make_example({1, 2}, {9, 3}), make_example({1, 2}, {9, 4})});
  CHECK(unseen[1].second == 1.0);
}

TEST_CASE("half a pair is refused", "[learners][cpu]") {
  Learner learner = make_learner({});
  CHECK_THROWS_AS(learner.update({make_example({1}, {3})}), InvalidArgument);
  CHECK_THROWS_AS(learner.evaluate({make_example({1}, {3})}), InvalidArgument);
}

TEST_CASE("reward_model takes pairs and reads its section", "[learners][cpu]") {
  auto document = YamlDocument::parse("label_noise: 0.5\nmargin: 3\n");
  BradleyTerryConfig::from_yaml(document->root());
  CHECK(document->errors().size() == 2);
  const auto algorithm = make_reward_model({});
  CHECK(algorithm->sample_plan().rows == RowForm::kPreference);
  CHECK_FALSE(algorithm->models().policy);
}

}  // namespace praetor
