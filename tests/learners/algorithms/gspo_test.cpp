#include "learners/algorithms/gspo.h"

#include <ATen/ATen.h>

#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::algorithm_from;
using testing::scored;
using testing::vec;

TEST_CASE("GSPO holds the ratio of a sequence in a narrow band: the worked example",
          "[learners][cpu]") {
  const auto gspo = algorithm_from("gspo");
  Experience e = scored({1, 0}, 2, {3, 1});
  const Batch batch = gspo->build_batch(e, {});
  e.advantage = vec({1, 1, 1, 0});
  const at::Tensor logprob = e.proximal_logprob + vec({0.1, -0.05, 0.2, 0});
  // s = 1.086904 is held at 1.0004; the other sequence adds nothing.
  CHECK(gspo->loss(testing::whole_batch(e, batch, logprob)).loss.item<double>() ==
        Approx(-1.0004 / 2));
  const auto wide = algorithm_from("gspo", "{clip_high: 0.5}");
  wide->build_batch(e, {});
  e.advantage = vec({1, 1, 1, 0});
  CHECK(wide->loss(testing::whole_batch(e, batch, logprob)).loss.item<double>() ==
        Approx(-1.086904 / 2).epsilon(1e-6));
}

TEST_CASE("GSPO has the advantages of GRPO and no reference", "[learners][cpu]") {
  const auto gspo = algorithm_from("gspo");
  Experience e = scored({1, 0, 0, 1}, 4);
  gspo->build_batch(e, {});
  CHECK(at::allclose(e.advantage, vec({0.866024, -0.866024, -0.866024, 0.866024}), 0, 1e-6));
  CHECK_FALSE(gspo->models().reference);
}

}  // namespace praetor
