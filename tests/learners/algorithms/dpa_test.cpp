#include "learners/algorithms/dpa.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::algorithm_from;
using testing::metric;
using testing::scored;
using testing::vec;

namespace {

/// Samples whose objectives are weighed by the direction of their angle, as a scorer hands them
/// over; `samples` neighbours answer one prompt.
Experience directed(const std::vector<std::array<double, 2>>& objectives,
                    const std::vector<double>& angles,
                    int64_t samples,
                    std::vector<int64_t> lengths = {}) {
  std::vector<double> scores, values, weights;
  for (size_t i = 0; i < objectives.size(); ++i) {
    const Direction v = direction_at(angles[i]);
    scores.push_back(v[0] * objectives[i][0] + v[1] * objectives[i][1]);
    values.insert(values.end(), objectives[i].begin(), objectives[i].end());
    weights.insert(weights.end(), v.begin(), v.end());
  }
  Experience e = scored(scores, samples, std::move(lengths));
  e.attribute_names = {"helpfulness", "verbosity"};
  e.attributes = vec(values).view({-1, 2});
  e.attribute_weights = vec(weights).view({-1, 2});
  return e;
}

}  // namespace

TEST_CASE("of a prompt's samples the best along its direction is learned", "[learners][cpu]") {
  // At -30 degrees (65, 40) beats (70, 60), at 0 it does not.
  const auto dpa = algorithm_from("dpa");
  Experience e = directed({{70, 60}, {65, 40}, {70, 60}, {65, 40}}, {-30, -30, 0, 0}, 2);
  CHECK(e.score[0].item<double>() == Approx(30.621778).epsilon(1e-6));
  CHECK(e.score[1].item<double>() == Approx(36.291651).epsilon(1e-6));
  const Batch batch = dpa->build_batch(e, {});
  CHECK(batch.units == std::vector<std::vector<int64_t>>{{1}, {2}});
  const StepReport report{.metrics = batch.metrics};
  CHECK(metric(report, "dpa/best_score") == Approx((36.291651 + 70) / 2).epsilon(1e-6));
  CHECK(metric(report, "dpa/best_helpfulness") == Approx(67.5));
  CHECK(metric(report, "dpa/helpfulness") == Approx(67.5));
  CHECK(metric(report, "dpa/verbosity") == Approx(50));
  // 0 is the upper edge of the last of three parts.
  CHECK(metric(report, "dpa/angle_-15_0/helpfulness") == Approx(67.5));
}

TEST_CASE("a response that did not end itself can lose to one that did", "[learners][cpu]") {
  Experience e = directed({{70, 60}, {65, 40}}, {0, 0}, 2);
  e.finished = {false, true};
  CHECK(algorithm_from("dpa")->build_batch(e, {}).units == std::vector<std::vector<int64_t>>{{0}});
  CHECK(algorithm_from("dpa", "{missing_eos_penalty: 6}")->build_batch(e, {}).units ==
        std::vector<std::vector<int64_t>>{{1}});
}

TEST_CASE("the loss is the likelihood of what is kept", "[learners][cpu]") {
  const auto dpa = algorithm_from("dpa");
  Experience e = directed({{1, 0}, {0, 0}, {0, 0}, {2, 0}}, {0, 0, 0, 0}, 2, {2, 1, 1, 3});
  const Batch batch = dpa->build_batch(e, {});
  MicroBatch micro;
  micro.sequences = 2;
  micro.mask = testing::mask_of({1, 1, 1, 1, 1});
  micro.sequence_of = testing::ids({0, 0, 1, 1, 1});
  micro.denominators.tokens = 5;
  const at::Tensor logprob = vec({-1, -2, -3, -4, -5});
  const auto loss = [&](const at::Tensor& x) {
    micro.logprob = x;
    return dpa->loss(micro).loss;
  };
  CHECK(loss(logprob).item<double>() == Approx(3));
  CHECK(testing::gradient_error(loss, logprob) < 1e-8);
  CHECK(batch.units == std::vector<std::vector<int64_t>>{{0}, {3}});
}

TEST_CASE("one sample a prompt is kept, an empty response is not learned", "[learners][cpu]") {
  Experience one = directed({{1, 0}, {3, 1}}, {-10, -40}, 1);
  CHECK(algorithm_from("dpa", "{samples_per_prompt: 1}")->build_batch(one, {}).units->size() == 2);
  Experience empty = directed({{5, 0}, {1, 0}}, {0, 0}, 2, {0, 1});
  CHECK(algorithm_from("dpa")->build_batch(empty, {}).units->empty());
}

TEST_CASE("ties go to the earlier sample", "[learners][cpu]") {
  Experience e = directed({{1, 0}, {1, 0}}, {0, 0}, 2);
  CHECK(algorithm_from("dpa")->build_batch(e, {}).units == std::vector<std::vector<int64_t>>{{0}});
}

TEST_CASE("the area under a front is that of its steps", "[learners][cpu]") {
  // (3, 1), (2, 2), (1, 4) over (0, 0): 3 + 2 + 2; (1, 1) and (0.5, 3) lie below it.
  CHECK(pareto_area({{1, 4}, {3, 1}, {1, 1}, {2, 2}, {0.5, 3}}, {0, 0}) == Approx(7));
  CHECK(pareto_area({{1, 4}}, {0, 1}) == Approx(3));
  CHECK(pareto_area({{-1, 4}, {1, -1}}, {0, 0}) == 0);
  CHECK(pareto_area({}, {0, 0}) == 0);
}

TEST_CASE("where less of an objective is wanted, the front counts its opposite",
          "[learners][cpu]") {
  // Two angles: means (2, -1) and (1, -3) are (2, 1) and (1, 3) of the front: 2 + 2.
  Experience e = directed({{2, -1}, {1, -3}}, {-1, -44}, 1);
  const auto dpa = algorithm_from("dpa");
  const StepReport report{.metrics = dpa->evaluate_samples(e)};
  CHECK(metric(report, "dpa/pareto_area") == Approx(4));
  CHECK(metric(report, "dpa/angle_-45_-30/verbosity") == -3);
  // In other units the corner moves with them.
  const auto moved = algorithm_from("dpa", "{reference_point: [1, -1], buckets: 1}");
  CHECK(metric({.metrics = moved->evaluate_samples(e)}, "dpa/pareto_area") == Approx(0.5));
}

TEST_CASE("samples without objectives are an error", "[learners][cpu]") {
  Experience e = scored({1, 2}, 2);
  CHECK_THROWS_WITH(algorithm_from("dpa")->build_batch(e, {}),
                    Catch::Contains("a reward part of kind attributes with a direction is wanted"));
}

TEST_CASE("dpa reads its section", "[learners][cpu]") {
  auto document = YamlDocument::parse(
      "angle: [1]\nbuckets: 0\nreference_point: [1, 2, 3]\ntext: none\nbucket: 2\n");
  DpaConfig::from_yaml(document->root());
  CHECK(document->errors().size() == 5);
  const auto dpa = algorithm_from("dpa", "{angle: [-60, 60], buckets: 2}");
  REQUIRE(dpa->sample_plan().direction);
  CHECK(dpa->sample_plan().direction->low == -60);
  CHECK(dpa->online());
}

}  // namespace praetor
