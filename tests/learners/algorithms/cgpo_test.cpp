#include "learners/algorithms/cgpo.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "learners/learner.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::make_experience;
using testing::metric;
using testing::Roll;
using testing::vec;

namespace {

CgpoConfig one_task(const std::string& optimizer) {
  CgpoConfig config;
  config.tasks[""] = {.optimizer = optimizer};
  return config;
}

Learner learner_of(CgpoConfig config, int64_t budget = 1000, double rate = 1e-2) {
  LearnerConfig settings;
  settings.optimizer.learning_rate = rate;
  settings.micro_batch_tokens = budget;
  LearnerModels models;
  models.policy = testing::tiny_policy();
  return Learner(settings, make_cgpo(std::move(config)), std::move(models));
}

/// A response of the policy and whether it satisfies the constraints.
Roll answer(int64_t ordinal, int32_t sample, std::vector<int64_t> tokens, double score, bool good) {
  Roll roll{{1, ordinal}, std::move(tokens), score, true, ordinal, sample};
  roll.satisfied = good ? 1 : 0;
  return roll;
}
Roll baseline(int64_t ordinal, int32_t sample, double score, bool good = true) {
  Roll roll = answer(ordinal, sample, {9, 9}, score, good);
  roll.voice = 1;
  return roll;
}

double logprob_of(const Experience& e, int64_t sequence) {
  return e.proximal_logprob.masked_select(e.sequence_of.eq(sequence)).sum().item<double>();
}

}  // namespace

TEST_CASE("CRPG's rewards have their worked values", "[learners][cpu]") {
  const CgpoTask task{.kl_max = 40};
  CHECK(calibrated_reward(2, 1) == Approx(0.731059).epsilon(1e-6));
  CHECK(crpg_reward(0.731059, true, 10, task) == Approx(0.548294).epsilon(1e-5));
  CHECK(crpg_reward(0.731059, false, 10, task) == 0);
  CHECK(crpg_reward(0.7, true, 50, task) == 0);
  // A response that the reference likes better gets more, unless that is cut.
  CHECK(crpg_reward(0.5, true, -40, task) == Approx(1.0));
  CHECK(crpg_reward(0.5, true, -40, {.kl_max = 40, .clip_kl_factor_at_one = true}) == Approx(0.5));
}

TEST_CASE("CODPO's loss has its worked value and its gradient", "[learners][cpu]") {
  // beta 0.1, h 5, lambda 1, length 10, log-likelihood -20.
  const at::Tensor loss = codpo_loss(vec({5}), vec({-20}), vec({0.1}), vec({0.1}));
  CHECK(loss.item<double>() == Approx(2.474077).epsilon(1e-6));
  const auto of_gap = [](const at::Tensor& x) {
    return codpo_loss(x, 0.3 * x, vec({0.1, 0.2}), vec({0.5, 0.1})).sum();
  };
  CHECK(testing::gradient_error(of_gap, vec({0.4, -2})) < 1e-8);
}

TEST_CASE("CRPG subtracts the mean of the whole task batch", "[learners][cpu]") {
  Learner learner = learner_of(one_task("crpg"));
  // Calibrated to sigma(1), violated, 1/2 and sigma(-1); the policy is the reference still.
  const std::vector<Roll> rolls = {answer(0, 0, {2, 3}, 2, true),
                                   answer(0, 1, {4}, 7, false),
                                   baseline(0, 2, 1),
                                   answer(1, 0, {5, 6, 7}, 0, true),
                                   answer(1, 1, {3}, -1, true),
                                   baseline(1, 2, 0)};
  Experience e = make_experience(rolls, learner.policy());
  const StepReport report = learner.update(e);
  const double high = 1 / (1 + std::exp(-1.0));
  const std::vector<double> rewards = {high, 0, 0.5, 1 - high};
  const double mean = (high + 0 + 0.5 + 1 - high) / 4;
  CHECK(metric(report, "cgpo/reward") == Approx(mean));
  const std::vector<int64_t> of = {0, 1, 3, 4};
  double loss = 0;
  for (size_t i = 0; i < 4; ++i) loss -= (rewards[i] - mean) / 4 * logprob_of(e, of[i]);
  CHECK(metric(report, "cgpo/likelihood_loss") == Approx(loss).epsilon(1e-5));
  CHECK(metric(report, "cgpo/satisfied") == 0.75);
  CHECK(metric(report, "cgpo/win_rate") == Approx((1 + 1 + 0.5 + 0) / 4));
  CHECK(metric(report, "cgpo/kl_over") == 0);
  // The baseline is no part of the policy gradient.
  CHECK(logprob_of(e, 2) == 0);
}

TEST_CASE("CODPO pairs the best satisfied with the worst violating response", "[learners][cpu]") {
  Learner learner = learner_of(one_task("codpo"));
  const std::vector<Roll> rolls = {// 1 is chosen (negative scores are scores too), 3 is rejected.
                                   answer(0, 0, {2, 3}, -5, true),
                                   answer(0, 1, {4, 5}, -2, true),
                                   answer(0, 2, {6}, 3, false),
                                   answer(0, 3, {7}, -9, false),
                                   baseline(0, 4, 0),
                                   // No violation: worst of all is rejected.
                                   answer(1, 0, {2}, 1, true),
                                   answer(1, 1, {3}, 2, true),
                                   baseline(1, 2, 0),
                                   // Nothing satisfied; and one response alone: skipped.
                                   answer(2, 0, {2}, 1, false),
                                   baseline(2, 1, 0),
                                   answer(3, 0, {2}, 1, true),
                                   baseline(3, 1, 0)};
  Experience e = make_experience(rolls, learner.policy());
  const StepReport report = learner.update(e);
  CHECK(metric(report, "cgpo/skipped") == 0.5);
  const double expected = std::log(2.0) - (logprob_of(e, 1) / 2 + logprob_of(e, 6)) / 2;
  CHECK(metric(report, "cgpo/pair_loss") == Approx(expected).epsilon(1e-5));
  for (int i = 0; i < 5; ++i) {
    Experience again = make_experience(rolls, learner.policy());
    CHECK(metric(learner.update(again), "cgpo/pair_gap") >= 0);
  }
}

TEST_CASE("CRRAFT learns the best kept response, or the baseline", "[learners][cpu]") {
  Learner learner = learner_of(one_task("crraft"));
  const std::vector<Roll> rolls = {answer(0, 0, {2, 3}, 2, true),
                                   answer(0, 1, {4}, 9, false),
                                   answer(0, 2, {5}, 1, true),
                                   baseline(0, 3, 1),
                                   answer(1, 0, {6}, 5, false),
                                   baseline(1, 1, 0),
                                   answer(2, 0, {6}, 5, false),
                                   baseline(2, 1, 0, false)};
  Experience e = make_experience(rolls, learner.policy());
  const StepReport report = learner.update(e);
  const double high = 1 / (1 + std::exp(-1.0));
  CHECK(metric(report, "cgpo/likelihood_loss") ==
        Approx(-(high * logprob_of(e, 0) + 0.5 * logprob_of(e, 5)) / 2).epsilon(1e-5));
  CHECK(metric(report, "cgpo/skipped") == Approx(1.0 / 3));
  CHECK(metric(report, "cgpo/baseline_used") == Approx(1.0 / 3));
  // R_calib 0.731059 and log-likelihood -20 give 14.621172.
  CHECK(0.731059 * 20 == Approx(14.621172).epsilon(1e-5));
}

TEST_CASE("tasks have optimizers and weights of their own and add up", "[learners][cpu]") {
  CgpoConfig config;
  config.tasks["chat"] = {.optimizer = "crpg", .weight = 2};
  config.tasks["math"] = {.optimizer = "codpo", .samples_per_prompt = 8};
  const auto plan = make_cgpo(config)->sample_plan();
  CHECK(plan.samples_by_task.at("math") == 8);
  CHECK(plan.samples_per_prompt == 8);
  std::vector<Roll> rolls = {answer(0, 0, {2, 3}, 2, true),
                             answer(0, 1, {4}, 0, true),
                             baseline(0, 2, 1),
                             answer(1, 0, {5}, 2, true),
                             answer(1, 1, {6}, 0, false),
                             baseline(1, 2, 1)};
  for (Roll& roll : rolls) roll.task = roll.ordinal == 0 ? "chat" : "math";
  Learner learner = learner_of(config);
  Experience e = make_experience(rolls, learner.policy());
  const StepReport report = learner.update(e);
  const double high = 1 / (1 + std::exp(-1.0)), half = high - 0.5;
  CHECK(metric(report, "cgpo/likelihood_loss") ==
        Approx(-2 * half * (logprob_of(e, 0) - logprob_of(e, 1)) / 2).epsilon(1e-4));
  CHECK(metric(report, "cgpo/pair_loss") == Approx(std::log(2.0) - logprob_of(e, 3)).epsilon(1e-5));
  CHECK(metric(report, "cgpo/chat/satisfied") == 1);
  CHECK(metric(report, "cgpo/math/satisfied") == 0.5);
  rolls[0].task = "chess";
  Experience unknown = make_experience(rolls, learner.policy());
  CHECK_THROWS_AS(learner.update(unknown), DataError);
}

TEST_CASE("a step without a satisfied response changes nothing with CRPG", "[learners][cpu]") {
  Learner learner = learner_of(one_task("crpg"));

  Experience e = make_experience(
      {answer(0, 0, {2, 3}, 2, false), answer(0, 1, {4}, 0, false), baseline(0, 2, 1)},
      learner.policy());
  const StepReport report = learner.update(e);
  CHECK(metric(report, "cgpo/likelihood_loss") == 0);
  CHECK(metric(report, "policy/grad_norm") == 0);
  // The count goes through the state.
  Learner other = learner_of(one_task("crpg"));
  other.load_state(learner.state(), learner.state_json());
  CHECK(other.state_json() == learner.state_json());
  CHECK(learner.algorithm().state_json() == R"({"violated_steps":1})");
}

TEST_CASE("the CGPO gradient does not depend on the micro-batch cut", "[learners][cpu]") {
  const auto weights_after = [](int64_t budget) {
    CgpoConfig config;
    config.tasks["a"] = {.optimizer = "crpg"};
    config.tasks["b"] = {.optimizer = "codpo"};
    config.tasks["c"] = {.optimizer = "crraft"};
    Learner learner = learner_of(config, budget);
    std::vector<Roll> rolls;
    for (int64_t prompt = 0; prompt < 6; ++prompt) {
      rolls.push_back(answer(prompt, 0, {2, prompt, 3}, 0.3 * static_cast<double>(prompt), true));
      rolls.push_back(answer(prompt, 1, {prompt, 4}, 1, prompt % 2 == 0));
      rolls.push_back(baseline(prompt, 2, 0.5));
      for (size_t i = rolls.size() - 3; i < rolls.size(); ++i)
        rolls[i].task = std::string(1, static_cast<char>('a' + prompt % 3));
    }
    for (int step = 0; step < 3; ++step) {
      Experience e = make_experience(rolls, learner.policy());
      learner.update(e);
    }
    return testing::flat_state(learner, true);
  };
  CHECK(testing::cut_error(weights_after) < 1e-5);
}

TEST_CASE("keys of cgpo out of range are named", "[learners][cpu]") {
  const auto document = YamlDocument::parse(
      "optimizer: crpgg\nbaseline: data\nkl_max: 0\n"
      "tasks: {chat: {weight: -1, lambda: 1}}\nkl: 1\n",
      "job.yaml");
  CgpoConfig::from_yaml(document->root());
  CHECK(document->errors().size() == 6);
}

}  // namespace praetor
