#include "learners/advantage/whiten.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::mask_of;
using testing::vec;

TEST_CASE("whitening uses Bessel's variance of the masked entries alone", "[learners][cpu]") {
  const double nan = std::nan("");
  // Entries 1 and 3: mean 2, variance 2.
  const at::Tensor out = whiten(vec({1, nan, 3}), mask_of({1, 0, 1}));
  CHECK(out[0].item<double>() == Approx(-1 / std::sqrt(2.0)));
  CHECK(out[1].item<double>() == 0);
  CHECK(out[2].item<double>() == Approx(1 / std::sqrt(2.0)));
}

TEST_CASE("whitening without shift keeps the mean", "[learners][cpu]") {
  const at::Tensor out = whiten(vec({1, 3, 8}), mask_of({1, 1, 1}), /*shift=*/false);
  CHECK(out.mean().item<double>() == Approx(4));
  CHECK(out.std().item<double>() == Approx(1));
}

TEST_CASE("all equal, one entry and none give no NaN", "[learners][cpu]") {
  CHECK(at::equal(whiten(vec({2, 2, 2}), mask_of({1, 1, 1})), vec({0, 0, 0})));
  CHECK(at::equal(whiten(vec({7, 5}), mask_of({1, 0})), vec({0, 0})));
  CHECK(whiten(vec({7, 5}), mask_of({1, 0}), false)[0].item<double>() == 7);
  CHECK(at::equal(whiten(vec({7, 5}), mask_of({0, 0})), vec({0, 0})));
}

TEST_CASE("moments of parts merge into the moments of the whole", "[learners][cpu]") {
  Moments merged = masked_moments(vec({1, 2, 6}));
  merged.merge(masked_moments(vec({})));
  merged.merge(masked_moments(vec({100, -3})));
  const Moments whole = masked_moments(vec({1, 2, 6, 100, -3}));
  CHECK(merged.count == 5);
  CHECK(merged.mean == Approx(whole.mean));
  CHECK(merged.variance() == Approx(whole.variance()));
  Moments empty;
  empty.merge(whole);
  CHECK(empty.mean == whole.mean);
}

TEST_CASE("whitening refuses a mask of another shape", "[learners][cpu]") {
  CHECK_THROWS_AS(whiten(vec({1, 2}), mask_of({1})), ShapeError);
}

}  // namespace praetor
