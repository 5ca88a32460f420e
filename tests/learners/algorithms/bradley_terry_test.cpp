#include "learners/algorithms/bradley_terry.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::gradient_error;
using testing::vec;

TEST_CASE("pair losses of the worked examples", "[learners][cpu]") {
  const auto w = vec({1.2}), l = vec({0.2});
  CHECK(bradley_terry(w, l, {}, 1).loss.item<double>() == Approx(0.313262).epsilon(1e-5));
  CHECK(bradley_terry(w, l, vec({0.5}), 1).loss.item<double>() == Approx(0.474077).epsilon(1e-5));
  CHECK(bradley_terry(w, l, vec({0.5}), 1, {.centring = 0.01}).loss.item<double>() ==
        Approx(0.493677).epsilon(1e-5));
}

TEST_CASE("label noise mixes in the other order", "[learners][cpu]") {
  // 0.9 * softplus(-1) + 0.1 * softplus(1)
  const double wanted = 0.9 * std::log1p(std::exp(-1.0)) + 0.1 * std::log1p(std::exp(1.0));
  CHECK(bradley_terry(vec({1}), vec({0}), {}, 1, {.label_noise = 0.1}).loss.item<double>() ==
        Approx(wanted));
}

TEST_CASE("equal scores lose ln 2 and count half, wide ones do not overflow", "[learners][cpu]") {
  const auto equal = bradley_terry(vec({3}), vec({3}), {}, 1);
  CHECK(equal.loss.item<double>() == Approx(std::log(2.0)));
  CHECK(equal.correct.item<double>() == 0.5);
  const auto wide = bradley_terry(vec({-500}), vec({500}), {}, 1);
  CHECK(wide.loss.item<double>() == Approx(1000));
  CHECK(wide.correct.item<double>() == 0);
  CHECK(wide.margin.item<double>() == -1000);
}

TEST_CASE("gradients of the pair loss agree with finite differences", "[learners][cpu]") {
  const auto loss = [](const at::Tensor& x) {
    return bradley_terry(x.slice(0, 0, 2),
                         x.slice(0, 2, 4),
                         vec({0.5, 1}),
                         2,
                         {.label_noise = 0.1, .centring = 0.01})
        .loss;
  };
  CHECK(gradient_error(loss, vec({1.2, -0.3, 0.2, 0.9})) < 1e-8);
}

TEST_CASE("pair loss refuses shapes and counts that do not fit", "[learners][cpu]") {
  CHECK_THROWS_AS(bradley_terry(vec({1}), vec({1, 2}), {}, 1), ShapeError);
  CHECK_THROWS_AS(bradley_terry(vec({1}), vec({1}), vec({1, 2}), 1), ShapeError);
  CHECK_THROWS_AS(bradley_terry(vec({1}), vec({1}), {}, 0), InvalidArgument);
}

}  // namespace praetor
