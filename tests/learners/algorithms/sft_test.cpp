#include "learners/algorithms/sft.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "learners/learner.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::make_example;
using testing::metric;

TEST_CASE("the SFT loss is the cross-entropy of the target tokens", "[learners][cpu]") {
  LearnerConfig config;
  config.optimizer.learning_rate = 1e-2;
  config.temperature = 0.5;  // of sampling; it has no place here
  LearnerModels models;
  models.policy = testing::tiny_policy();
  Learner learner(config, make_sft({}), std::move(models));
  const std::vector<Example> examples{make_example({1, 2}, {3, 4, 5}), make_example({1}, {6})};
  const double wanted = [&] {
    const at::NoGradGuard no_grad;
    const auto& policy = learner.policy();
    const at::Tensor logits = policy.logits(policy.hidden(pack({{1, 2, 3, 4, 5}, {1, 6}})));
    const at::Tensor rows = logits.index_select(0, testing::ids({1, 2, 3, 5}));
    return at::cross_entropy_loss(rows, testing::ids({3, 4, 5, 6})).item<double>();
  }();
  CHECK(learner.evaluate(examples)[0].second == Approx(wanted).epsilon(1e-5));
  const StepReport report = learner.update(examples);
  CHECK(metric(report, "sft/loss") == Approx(wanted).epsilon(1e-5));
  CHECK(metric(report, "sft/ppl") == Approx(std::exp(wanted)).epsilon(1e-5));
  CHECK(metric(report, "sft/tokens") == 4);
  CHECK(report.optimizer_steps == 1);
  for (int step = 0; step < 30; ++step) learner.update(examples);
  CHECK(learner.evaluate(examples)[0].second < 0.2 * wanted);
}

TEST_CASE("examples without targets make no step", "[learners][cpu]") {
  LearnerModels models;
  models.policy = testing::tiny_policy();
  Learner learner({}, make_sft({}), std::move(models));
  const StepReport report = learner.update({make_example({1, 2}, {})});
  CHECK(report.optimizer_steps == 0);
  CHECK(learner.evaluate({make_example({1, 2}, {})}) == Metrics{{"tokens", 0}});
}

TEST_CASE("sft takes completions and reads its section", "[learners][cpu]") {
  auto document = YamlDocument::parse("batch_size: 0\nbatch: 3\n");
  SftConfig::from_yaml(document->root());
  CHECK(document->errors().size() == 2);
  const auto sft = make_sft({.batch_size = 7});
  CHECK(sft->sample_plan().rows == RowForm::kCompletion);
  CHECK(sft->sample_plan().prompts_per_step == 7);
  CHECK_FALSE(sft->online());
}

}  // namespace praetor
