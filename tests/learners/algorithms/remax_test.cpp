#include "learners/algorithms/remax.h"

#include <ATen/ATen.h>

#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::algorithm_from;
using testing::metric;
using testing::scored;
using testing::vec;

TEST_CASE("ReMax takes off the greedy response's score: the worked example", "[learners][cpu]") {
  const auto remax = algorithm_from("remax");
  Experience e = scored({1.2, 0.7}, 2, {2, 3});
  e.voice = {0, 1};
  const Batch batch = remax->build_batch(e, {});
  CHECK(at::allclose(e.advantage.slice(0, 0, 2), vec({0.5, 0.5})));
  // The greedy response does not train, and its KL is nobody's.
  CHECK(at::equal(batch.mask, testing::mask_of({1, 1, 0, 0, 0})));
  CHECK(batch.units == std::vector<std::vector<int64_t>>{{0}});
  const StepReport report{.metrics = batch.metrics};
  CHECK(metric(report, "remax/greedy_score") == Approx(0.7));
  CHECK(metric(report, "objective/score") == Approx(1.2));
  CHECK(metric(report, "remax/without_baseline") == 0);
}

TEST_CASE("ReMax sums the rewards to come, the penalty of each token among them",
          "[learners][cpu]") {
  const auto remax = algorithm_from("remax", "{kl: {coefficient: 0.1}}");
  Experience e = scored({1, 0.25}, 2, {2, 1});
  e.voice = {0, 1};
  e.reference_logprob = vec({-1.5, -0.8, -1});  // k1 = 0.5, -0.2
  remax->build_batch(e, {});
  // Rewards -0.05 and 1.02: to go 0.97 and 1.02.
  CHECK(at::allclose(e.advantage.slice(0, 0, 2), vec({0.72, 0.77})));
}

TEST_CASE("a prompt whose greedy response was lost teaches nothing", "[learners][cpu]") {
  const auto remax = algorithm_from("remax");
  Experience e = scored({1, 3, 2}, 2);
  e.voice = {0, 1, 0};
  const Batch batch = remax->build_batch(e, {});
  CHECK(at::allclose(e.advantage, vec({-2, 0, 0})));
  CHECK(metric(StepReport{.metrics = batch.metrics}, "remax/without_baseline") == 0.5);
}

TEST_CASE("ReMax asks for one greedy response to each prompt", "[learners][cpu]") {
  const SamplePlan plan = algorithm_from("remax")->sample_plan();
  REQUIRE(plan.others.size() == 1);
  CHECK(plan.others[0].greedy);
  CHECK_FALSE(plan.others[0].trained);
  CHECK(plan.total_samples() == 2);
}

}  // namespace praetor
