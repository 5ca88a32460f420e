#include "learners/advantage/reward_shaping.h"

#include <ATen/ATen.h>

#include "core/base/error.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::ids;
using testing::vec;

TEST_CASE("reward of the worked example: KL on every token, score on the last", "[learners][cpu]") {
  const auto out = shape_reward(
      vec({1}), {true}, vec({-1, -2}), vec({-1.5, -1.8}), ids({0, 0}), {.kl_coefficient = 0.1});
  CHECK(at::allclose(out.reward, vec({-0.05, 1.02}), 0, 1e-12));
  CHECK(at::allclose(out.kl, vec({0.5, -0.2})));
}

TEST_CASE("the penalty of a whole sequence can stand on its last token", "[learners][cpu]") {
  // sum of k1 = 0.3, so the last token has 1 - 0.1 * 0.3.
  const auto out = shape_reward(vec({1}),
                                {true},
                                vec({-1, -2}),
                                vec({-1.5, -1.8}),
                                ids({0, 0}),
                                {.kl_coefficient = 0.1, .per_sample_kl = true});
  CHECK(at::allclose(out.reward, vec({0, 0.97})));
}

TEST_CASE("the other estimators enter the reward", "[learners][cpu]") {
  const auto k2 = shape_reward(vec({0}),
                               {true},
                               vec({-1}),
                               vec({-1.2}),
                               ids({0}),
                               {.estimator = KlEstimator::kK2, .kl_coefficient = 1});
  CHECK(k2.reward[0].item<double>() == Approx(-0.02));
  const auto k3 = shape_reward(vec({0}),
                               {true},
                               vec({-1}),
                               vec({-1.2}),
                               ids({0}),
                               {.estimator = KlEstimator::kK3, .kl_coefficient = 1});
  CHECK(k3.reward[0].item<double>() == Approx(-0.018730753));
}

TEST_CASE("scores are clipped, then an unfinished response pays", "[learners][cpu]") {
  const auto out = shape_reward(vec({9, -9, 1}),
                                {true, true, false},
                                vec({0, 0, 0}),
                                {},
                                ids({0, 1, 2}),
                                {.score_clip = 5, .missing_eos_penalty = 2});
  CHECK(at::equal(out.reward, vec({5, -5, -1})));
  CHECK_FALSE(out.kl.defined());
}

TEST_CASE("a response without tokens has no reward and shifts nobody's", "[learners][cpu]") {
  const auto out = shape_reward(vec({1, 2, 3}),
                                {true, true, true},
                                vec({0, 0, 0}),
                                vec({0, 0, 0}),
                                ids({0, 2, 2}),
                                {.kl_coefficient = 1});
  CHECK(at::equal(out.reward, vec({1, 0, 3})));
  const auto none =
      shape_reward(vec({1}), {true}, vec({}), vec({}), ids({}), {.kl_coefficient = 1});
  CHECK(none.reward.numel() == 0);
}

TEST_CASE("the scores given are not changed", "[learners][cpu]") {
  const at::Tensor score = vec({9});
  shape_reward(score, {false}, vec({0}), {}, ids({0}), {.score_clip = 1, .missing_eos_penalty = 1});
  CHECK(score[0].item<double>() == 9);
}

TEST_CASE("reward shaping refuses what does not fit", "[learners][cpu]") {
  CHECK_THROWS_AS(shape_reward(vec({1}), {true, true}, vec({0}), {}, ids({0}), {}), ShapeError);
  CHECK_THROWS_AS(shape_reward(vec({1}), {true}, vec({0}), {}, ids({1}), {}), ShapeError);
  CHECK_THROWS_AS(shape_reward(vec({1}), {true}, vec({0}), vec({0, 0}), ids({0}), {}), ShapeError);
}

TEST_CASE("long responses are punished softly: the worked example", "[learners][cpu]") {
  // L_max 20480 with L_cache 4096: 18432 tokens lose half a point.
  const std::vector<int64_t> lengths{16384, 18432, 20480, 21000, 3};
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < lengths.size(); ++i)
    parts.push_back(at::full({lengths[i]}, static_cast<int64_t>(i), at::kLong));
  const at::Tensor sequence_of = at::cat(parts);
  const at::Tensor logprob = at::zeros({sequence_of.numel()}, at::kDouble);
  const RewardShaping shaping{.score_clip = 1, .overlong_limit = 20480, .overlong_buffer = 4096};
  const auto out = shape_reward(
      vec({9, 0, 0, 0, 0}), {true, true, true, true, false}, logprob, {}, sequence_of, shaping);
  CHECK(at::allclose(out.score, vec({1, -0.5, -1, -1, -1})));
}

}  // namespace praetor
