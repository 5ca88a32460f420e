#include "learners/optim/schedule.h"

#include "core/base/error.h"
#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("warm-up rises to 1 and constant stays there", "[learners][cpu]") {
  const Schedule schedule{.shape = "constant", .warmup_steps = 4};
  CHECK(schedule.factor(0) == 0.25);
  CHECK(schedule.factor(3) == 1);
  CHECK(schedule.factor(1000) == 1);
}

TEST_CASE("linear and cosine fall from 1 to the floor and stay there", "[learners][cpu]") {
  const Schedule linear{.shape = "linear", .warmup_steps = 2, .total_steps = 12, .min_ratio = 0.1};
  CHECK(linear.factor(2) == Approx(1));
  CHECK(linear.factor(7) == Approx(0.55));
  CHECK(linear.factor(12) == Approx(0.1));
  CHECK(linear.factor(50) == Approx(0.1));
  const Schedule cosine{.shape = "cosine", .total_steps = 10};
  CHECK(cosine.factor(0) == Approx(1));
  CHECK(cosine.factor(5) == Approx(0.5));
  CHECK(cosine.factor(10) == Approx(0).margin(1e-12));
  // Never past the end: warm-up as long as the stage.
  CHECK(Schedule{.shape = "linear", .warmup_steps = 10, .total_steps = 10}.factor(10) == Approx(1));
}

TEST_CASE("an unknown shape and a missing length are refused", "[learners][cpu]") {
  CHECK_THROWS_AS((Schedule{.shape = "step"}.factor(0)), InvalidArgument);
  CHECK_THROWS_AS((Schedule{.shape = "cosine"}.factor(0)), InvalidArgument);
}

}  // namespace praetor
