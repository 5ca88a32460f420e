#include "learners/algorithms/value_loss.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::gradient_error;
using testing::mask_of;
using testing::vec;

TEST_CASE("value loss of the worked example", "[learners][cpu]") {
  // V_c = 0.7: max(0.4^2, 0.1^2) / 2 = 0.08; the plain error is the larger, so nothing was clipped.
  const auto out = value_loss(vec({1.0}), vec({0.5}), vec({0.6}), mask_of({1}), 0.2);
  CHECK(out.per_token.item<double>() == Approx(0.08));
  CHECK(out.clipped.item<int64_t>() == 0);
}

TEST_CASE("a value that runs to its target too fast is held and has no gradient",
          "[learners][cpu]") {
  // V_c = 0.7, target 1: (0.3)^2 / 2.
  const at::Tensor value = vec({1.0}).set_requires_grad(true);
  const auto out = value_loss(value, vec({0.5}), vec({1.0}), mask_of({1}), 0.2);
  out.per_token.sum().backward();
  CHECK(out.per_token.item<double>() == Approx(0.045));
  CHECK(out.clipped.item<int64_t>() == 1);
  CHECK(value.grad().item<double>() == 0);
  CHECK(value_loss(vec({1.0}), vec({0.5}), vec({1.0}), mask_of({1}), 0).per_token.item<double>() ==
        0);
}

TEST_CASE("the gradient of the value loss agrees with finite differences", "[learners][cpu]") {
  const auto old = vec({0.5, 0.5, -1}), target = vec({0.6, 2, 0});
  for (const double clip : {0.0, 0.2}) {
    const auto loss = [&](const at::Tensor& x) {
      return value_loss(x, old, target, mask_of({1, 1, 0}), clip).per_token.sum();
    };
    CHECK(gradient_error(loss, vec({1.0, 0.55, 0.3})) < 1e-8);
  }
}

TEST_CASE("NaN outside the mask reaches neither value loss nor gradient", "[learners][cpu]") {
  const double nan = std::nan("");
  const at::Tensor value = vec({1, nan}).set_requires_grad(true);
  const auto out = value_loss(value, vec({1, nan}), vec({0, nan}), mask_of({1, 0}), 0.2);
  out.per_token.sum().backward();
  CHECK(out.per_token.sum().item<double>() == 0.5);
  CHECK(at::equal(value.grad(), vec({1, 0})));
  CHECK_THROWS_AS(value_loss(value, vec({1}), vec({0, 1}), mask_of({1, 0}), 0.2), ShapeError);
}

}  // namespace praetor
