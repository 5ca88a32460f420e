#include "learners/algorithms/dpo.h"

#include <ATen/ATen.h>

#include <cmath>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "core/collective/collective.h"
#include "learners/learner.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::make_example;
using testing::metric;

namespace {

Learner dpo_learner(DpoConfig config) {
  LearnerConfig settings;
  settings.optimizer.learning_rate = 1e-2;
  LearnerModels models;
  models.policy = testing::tiny_policy();
  return Learner(settings, make_dpo(config), std::move(models));
}

/// Two pairs: chosen, rejected, chosen, rejected.
std::vector<Example> pairs() {
  return {make_example({1, 2}, {3, 4, 5}),
          make_example({1, 2}, {6}),
          make_example({2}, {4, 4}),
          make_example({2}, {3, 5, 3})};
}

}  // namespace

TEST_CASE("the DPO loss has its worked values and its gradient", "[learners][cpu]") {
  // beta 0.1, Delta_w 2, Delta_l -1: beta h = 0.3.
  const at::Tensor ratio = at::tensor({2.0, -1.0}, at::kDouble);
  const DpoLoss plain = dpo_loss(ratio, 1, {});
  CHECK(plain.loss.item<double>() == Approx(0.554355).epsilon(1e-6));
  CHECK(plain.chosen[0].item<double>() == Approx(0.2));
  CHECK(plain.rejected[0].item<double>() == Approx(-0.1));
  CHECK(dpo_loss(ratio, 1, {.label_smoothing = 0.1}).loss.item<double>() ==
        Approx(0.584355).epsilon(1e-6));
  CHECK(dpo_loss(ratio, 4, {}).loss.item<double>() == Approx(0.554355 / 4).epsilon(1e-6));

  at::Tensor x = at::tensor({2.0, -1.0, 0.3, 0.4}, at::kDouble).requires_grad_(true);
  dpo_loss(x, 2, {}).loss.backward();
  // d loss / d Delta(y_w) = -beta sigma(-beta h), a half of it as there are two pairs.
  CHECK(x.grad()[0].item<double>() == Approx(-0.1 / (1 + std::exp(0.3)) / 2));
  CHECK(x.grad()[1].item<double>() == Approx(0.1 / (1 + std::exp(0.3)) / 2));
  const double eps = 1e-6;
  for (int64_t i = 0; i < 4; ++i) {
    const DpoConfig smooth{.beta = 0.5, .label_smoothing = 0.2};
    at::Tensor y = x.detach().clone().requires_grad_(true);
    dpo_loss(y, 2, smooth).loss.backward();
    at::Tensor up = x.detach().clone(), down = x.detach().clone();
    up[i] += eps;
    down[i] -= eps;
    const double slope =
        (dpo_loss(up, 2, smooth).loss - dpo_loss(down, 2, smooth).loss).item<double>() / (2 * eps);
    CHECK(y.grad()[i].item<double>() == Approx(slope).margin(1e-8));
  }
  CHECK_THROWS_AS(dpo_loss(at::zeros({3}), 1, {}), ShapeError);
  CHECK_THROWS_AS(dpo_loss(at::zeros({2}), 0, {}), InvalidArgument);
}

TEST_CASE("DPO starts at ln 2 and comes to prefer what was chosen", "[learners][cpu]") {
  Learner learner = dpo_learner({});
  const std::vector<Example> examples = pairs();
  const StepReport first = learner.update(examples);
  // The policy is its own reference still.
  CHECK(metric(first, "dpo/loss") == Approx(std::log(2.0)).epsilon(1e-6));
  CHECK(metric(first, "dpo/accuracy") == 0.5);
  CHECK(metric(first, "dpo/margin") == 0.0);
  CHECK(metric(first, "dpo/pairs") == 2);
  StepReport last;
  for (int step = 0; step < 20; ++step) last = learner.update(examples);
  CHECK(metric(last, "dpo/accuracy") == 1.0);
  CHECK(metric(last, "dpo/loss") < 0.6);
  CHECK(metric(last, "dpo/chosen_reward") > metric(last, "dpo/rejected_reward"));
  const Metrics evaluated = learner.evaluate(examples);
  CHECK(evaluated[0].first == "accuracy");
  CHECK(evaluated[0].second == 1.0);
  CHECK(evaluated[1].second > 0);
}

TEST_CASE("the DPO gradient does not depend on the micro-batch cut", "[learners][cpu]") {
  const auto weights_after = [](int64_t budget) {
    LearnerConfig settings;
    settings.optimizer.learning_rate = 1e-2;
    settings.micro_batch_tokens = budget;
    LearnerModels models;
    models.policy = testing::tiny_policy();
    Learner learner(settings, make_dpo({}), std::move(models));
    for (int step = 0; step < 3; ++step) learner.update(pairs());
    return testing::flat_state(learner, true);
  };
  CHECK(testing::cut_error(weights_after) < 1e-5);
}

TEST_CASE("DPO with a reference in the rows holds none, and wants every target's value",
          "[learners][cpu]") {
  const auto plan = make_dpo(DpoConfig{.precomputed = true})->models();
  CHECK_FALSE(plan.reference);
  CHECK(plan.reference_in_rows);
  Learner learner = dpo_learner({.precomputed = true});
  CHECK(learner.companion() == nullptr);
  std::vector<Example> examples = pairs();
  for (Example& example : examples) example.reference_logprob = {-1};
  examples[0].row = 7;
  const std::string wanted =
      "row 7: 1 log-probabilities of the reference for 3 target tokens; one a token is wanted";
  CHECK_THROWS_WITH(learner.update(examples), wanted);
  CHECK_THROWS_WITH(learner.evaluate(examples), wanted);
}

TEST_CASE("where DPO's reference is computed is a key", "[learners][cpu]") {
  const auto read = [](const char* text) {
    const auto document = YamlDocument::parse(text, "job.yaml");
    const DpoConfig config = DpoConfig::from_yaml(document->root());
    return std::pair(config.precomputed, document->errors().size());
  };
  CHECK(read("{}") == std::pair(false, size_t{0}));
  CHECK(read("reference: computed") == std::pair(false, size_t{0}));
  CHECK(read("reference: precomputed") == std::pair(true, size_t{0}));
  CHECK(read("reference: cached").second == 1);
}

TEST_CASE("DPO keys out of range are named", "[learners][cpu]") {
  const auto document = YamlDocument::parse("beta: 0\nlabel_smoothing: 0.5\nbta: 1\n", "job.yaml");
  DpoConfig::from_yaml(document->root());
  CHECK(document->errors().size() == 3);
}

}  // namespace praetor
