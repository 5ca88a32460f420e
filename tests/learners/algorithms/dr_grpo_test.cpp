#include "learners/algorithms/dr_grpo.h"

#include <ATen/ATen.h>

#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::scored;
using testing::vec;

TEST_CASE("Dr.GRPO does not divide by the deviation: the worked example", "[learners][cpu]") {
  Experience e = scored({1, 0, 0, 0}, 4);
  make_grpo(dr_grpo_defaults(), "dr_grpo")->build_batch(e, {});
  CHECK(at::allclose(e.advantage, vec({0.75, -0.25, -0.25, -0.25})));
}

TEST_CASE("Dr.GRPO divides by a constant length, the longest that is sampled", "[learners][cpu]") {
  Experience e = scored({1, 0}, 2, {2, 4});
  const auto loss = [&](const std::string& yaml) {
    const auto method = testing::algorithm_from("dr_grpo", yaml);
    const Batch batch = method->build_batch(e, {.max_new_tokens = 8});
    return method->loss(testing::whole_batch(e, batch, e.proximal_logprob)).loss.item<double>();
  };
  // -(0.5 * 2 - 0.5 * 4) / (2 * 8)
  CHECK(loss("{}") == Approx(1.0 / 16));
  CHECK(loss("{max_tokens: 4}") == Approx(1.0 / 8));
}

TEST_CASE("Dr.GRPO holds no reference and is named", "[learners][cpu]") {
  const auto method = testing::algorithm_from("dr_grpo");
  CHECK(method->name() == "dr_grpo");
  CHECK_FALSE(method->models().reference);
}

}  // namespace praetor
