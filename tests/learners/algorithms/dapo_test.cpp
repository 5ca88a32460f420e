#include "learners/algorithms/dapo.h"

#include <ATen/ATen.h>

#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::algorithm_from;
using testing::scored;
using testing::vec;

TEST_CASE("DAPO drops prompts whose samples all scored alike", "[learners][cpu]") {
  const auto dapo = algorithm_from("dapo");
  CHECK(dapo->accept({.scores = {1, 1, 1}}).has_value());
  CHECK(dapo->accept({.scores = {0, 0}}).has_value());
  CHECK(dapo->accept({.scores = {1}}).has_value());  // the others were lost: no contrast either
  CHECK_FALSE(dapo->accept({.scores = {1, 0, 1}}).has_value());
  CHECK_FALSE(
      algorithm_from("dapo", "{drop_equal: false}")->accept({.scores = {1, 1}}).has_value());
}

TEST_CASE("DAPO lifts the ceiling alone", "[learners][cpu]") {
  const auto dapo = algorithm_from("dapo");
  Experience e = scored({1, -1}, 2);
  const Batch batch = dapo->build_batch(e, {.max_new_tokens = 10});
  // A = +-0.7071: ratio 1.5 is held at 1.28, ratio 0.5 of the bad one at 0.8.
  const at::Tensor logprob = e.proximal_logprob + vec({0.405465, -0.693147});
  CHECK(dapo->loss(testing::whole_batch(e, batch, logprob)).loss.item<double>() ==
        Approx(-0.707106 * (1.28 - 0.8) / 2).epsilon(1e-5));
}

TEST_CASE("DAPO counts every token alike and punishes those near the limit", "[learners][cpu]") {
  const auto dapo = algorithm_from("dapo");
  // Ten tokens at most, the last two of them cost: 9 tokens half a point, a cut response a whole.
  Experience e = scored({1, 1, 1}, 3, {8, 9, 10});
  e.finished[2] = false;
  const Batch batch = dapo->build_batch(e, {.max_new_tokens = 10});
  CHECK(at::allclose(e.reward.index_select(0, testing::ids({7, 16, 26})), vec({1, 0.5, 0})));
  // Rewards 1, 0.5, 0 over a deviation of 0.5: advantages 1, 0, -1; -(8 - 10) / 27.
  CHECK(dapo->loss(testing::whole_batch(e, batch, e.proximal_logprob)).loss.item<double>() ==
        Approx(2.0 / 27).epsilon(1e-5));
}

}  // namespace praetor
