#include "learners/advantage/gae.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "learners/advantage/whiten.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::ids;
using testing::mask_of;
using testing::vec;

TEST_CASE("advantages and returns of the worked example", "[learners][cpu]") {
  const Gae out = gae(vec({0, 0, 1}), vec({0.5, 0.4, 0.2}), ids({0, 0, 0}), {1.0, 0.95});
  CHECK(at::allclose(out.advantage, vec({0.432, 0.56, 0.8}), 0, 1e-12));
  CHECK(at::allclose(out.returns, vec({0.932, 0.96, 1.0}), 0, 1e-12));
  const at::Tensor white = whiten(out.advantage, mask_of({1, 1, 1}));
  CHECK(at::allclose(white, vec({-0.884992, -0.199837, 1.084829}), 0, 1e-5));
}

TEST_CASE("each sequence of a ragged batch is its own and empty ones take no place",
          "[learners][cpu]") {
  // Sequence 1 has no tokens. With gamma = lambda = 1 the return is the sum of what is left of the
  // sequence.
  const Gae out = gae(vec({1, 2, 5}), vec({0.25, 0.5, 3}), ids({0, 0, 2}), {1.0, 1.0});
  CHECK(at::allclose(out.returns, vec({3, 2, 5})));
  const Gae none = gae(vec({}), vec({}), ids({}), {});
  CHECK(none.advantage.numel() == 0);
}

TEST_CASE("a truncated sequence bootstraps from the value after its last token",
          "[learners][cpu]") {
  // delta = 1 + 0.5 * 4 - 2 = 1; the other sequence has bootstrap 0.
  const Gae out = gae(vec({1, 1}), vec({2, 2}), ids({0, 1}), {0.5, 0.95}, {}, vec({4, 0}));
  CHECK(at::allclose(out.advantage, vec({1, -1})));
  CHECK(at::allclose(out.returns, vec({3, 1})));
}

TEST_CASE("tokens outside the mask pass value and advantage on, whatever they hold",
          "[learners][cpu]") {
  const double nan = std::nan("");
  const Gae whole = gae(vec({0.1, 0.3}), vec({0.5, 0.2}), ids({0, 0}), {0.9, 0.8});
  const Gae holed = gae(
      vec({0.1, nan, 0.3}), vec({0.5, nan, 0.2}), ids({0, 0, 0}), {0.9, 0.8}, mask_of({1, 0, 1}));
  CHECK(holed.advantage[0].item<double>() == whole.advantage[0].item<double>());
  CHECK(holed.advantage[1].item<double>() == 0);
  CHECK(holed.returns[2].item<double>() == whole.returns[1].item<double>());
}

TEST_CASE("gae refuses shapes that do not fit", "[learners][cpu]") {
  CHECK_THROWS_AS(gae(vec({0, 0}), vec({0}), ids({0, 0}), {}), ShapeError);
  CHECK_THROWS_AS(gae(vec({0, 0}), vec({0, 0}), ids({1, 0}), {}), ShapeError);
  CHECK_THROWS_AS(gae(vec({0, 0}), vec({0, 0}), ids({0, 1}), {}, {}, vec({1})), ShapeError);
}

}  // namespace praetor
