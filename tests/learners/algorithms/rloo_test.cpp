#include "learners/algorithms/rloo.h"

#include <ATen/ATen.h>

#include <cmath>

#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::algorithm_from;
using testing::scored;
using testing::vec;

TEST_CASE("RLOO leaves a sample out of its own baseline: the worked example", "[learners][cpu]") {
  Experience e = scored({1, 2, 3, 6}, 4);
  make_rloo(RlooConfig())->build_batch(e, {});
  CHECK(at::allclose(e.advantage, vec({-2.666667, -1.333333, 0, 4}), 0, 1e-6));
}

TEST_CASE("RLOO clips one ratio a sequence, its product over the tokens", "[learners][cpu]") {
  const auto rloo = make_rloo(RlooConfig());
  Experience e = scored({2, 0}, 2, {2, 3});
  const Batch batch = rloo->build_batch(e, {});
  const at::Tensor logprob = e.proximal_logprob + vec({0.3, -0.2, -0.1, 0.05, 0});
  // A = 2 and -2; ratios e^0.1 and e^-0.05, both within the band.
  CHECK(rloo->loss(testing::whole_batch(e, batch, logprob)).loss.item<double>() ==
        Approx(-(2 * std::exp(0.1) - 2 * std::exp(-0.05)) / 2));
  // e^0.4 is held at 1.2.
  const at::Tensor far = e.proximal_logprob + vec({0.3, 0.1, -0.1, 0.05, 0});
  CHECK(rloo->loss(testing::whole_batch(e, batch, far)).loss.item<double>() ==
        Approx(-(2 * 1.2 - 2 * std::exp(-0.05)) / 2));
}

TEST_CASE("with token ratios RLOO sums over the tokens", "[learners][cpu]") {
  const auto rloo = algorithm_from("rloo", "{ratio: token}");
  Experience e = scored({2, 0}, 2, {2, 3});
  const Batch batch = rloo->build_batch(e, {});
  // At ratio 1: -(2 * 2 - 2 * 3) / 2.
  CHECK(rloo->loss(testing::whole_batch(e, batch, e.proximal_logprob)).loss.item<double>() ==
        Approx(1));
}

}  // namespace praetor
