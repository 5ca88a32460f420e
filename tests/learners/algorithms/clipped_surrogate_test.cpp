#include "learners/algorithms/clipped_surrogate.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::gradient_error;
using testing::mask_of;
using testing::vec;

TEST_CASE("a rising ratio is capped and its gradient stops", "[learners][cpu]") {
  // One token: r = 1.5, A = 1, ceiling 1.2, so loss = -1.2 and d(loss)/d(logprob) = 0.
  const at::Tensor logprob = vec({std::log(1.5)}).set_requires_grad(true);
  const auto out = clipped_surrogate(logprob, vec({0}), vec({1}), mask_of({1}), {0.2, 0.2});
  out.per_token.sum().backward();
  CHECK(out.per_token.item<double>() == Approx(-1.2));
  CHECK(logprob.grad().item<double>() == 0.0);
  CHECK(out.clipped_high.item<int64_t>() == 1);
  CHECK(out.clipped_low.item<int64_t>() == 0);
}

TEST_CASE("a falling ratio of a bad token is floored", "[learners][cpu]") {
  const auto out =
      clipped_surrogate(vec({std::log(0.5)}), vec({0}), vec({-1}), mask_of({1}), {0.2, 0.2});
  CHECK(out.per_token.item<double>() == Approx(0.8));
  CHECK(out.clipped_low.item<int64_t>() == 1);
  CHECK(out.clipped_high.item<int64_t>() == 0);
}

TEST_CASE("losses of the worked examples, dual clip included", "[learners][cpu]") {
  const auto up = clipped_surrogate(
      vec({-0.7, -0.7}), vec({-1, -1}), vec({2, -2}), mask_of({1, 1}), {0.2, 0.2});
  CHECK(up.per_token[0].item<double>() == Approx(-2.4));
  CHECK(up.per_token[1].item<double>() == Approx(2.699718));
  const auto dual =
      clipped_surrogate(vec({1.5, 1.5}), vec({0, 0}), vec({-2, 2}), mask_of({1, 1}), {0.2, 0.2, 3});
  CHECK(dual.per_token[0].item<double>() == Approx(6));
  CHECK(dual.per_token[1].item<double>() == Approx(-2.4));  // a positive advantage is not touched
}

TEST_CASE("the two edges of the band differ", "[learners][cpu]") {
  const auto out =
      clipped_surrogate(vec({1, -1}), vec({0, 0}), vec({1, -1}), mask_of({1, 1}), {0.2, 0.28});
  CHECK(out.per_token[0].item<double>() == Approx(-1.28));
  CHECK(out.per_token[1].item<double>() == Approx(0.8));
}

TEST_CASE("the gradient of the surrogate agrees with finite differences", "[learners][cpu]") {
  const auto proximal = vec({-1, -1, -1, -1, -1}), advantage = vec({2, -2, 0.5, -1, 3});
  const auto loss = [&](const at::Tensor& x) {
    return clipped_surrogate(x, proximal, advantage, mask_of({1, 1, 1, 1, 0}), {0.2, 0.2, 3})
        .per_token.sum();
  };
  CHECK(gradient_error(loss, vec({-0.7, -0.7, -1.05, 0.6, -1})) < 1e-8);
}

TEST_CASE("at the proximal policy the ratio is 1 and the divergence 0", "[learners][cpu]") {
  const auto logprob = vec({-1, -2});
  const auto out = clipped_surrogate(logprob, logprob, vec({1, -1}), mask_of({1, 1}), {});
  CHECK(out.ratio_error.item<double>() == 0);
  CHECK(out.ratio_max.item<double>() == 1);
  CHECK(out.approx_kl.item<double>() == 0);
  CHECK(out.approx_kl_k2.item<double>() == 0);
}

TEST_CASE("reported divergences are k3 and k2 from the proximal policy", "[learners][cpu]") {
  // log r = 0.2: k3 = e^0.2 - 1 - 0.2, k2 = 0.02.
  const auto out = clipped_surrogate(vec({-1.0}), vec({-1.2}), vec({1}), mask_of({1}), {});
  CHECK(out.approx_kl.item<double>() == Approx(std::exp(0.2) - 1.2));
  CHECK(out.approx_kl_k2.item<double>() == Approx(0.02));
}

TEST_CASE("NaN and infinity outside the mask reach neither loss nor gradient", "[learners][cpu]") {
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const at::Tensor logprob = vec({-1, nan, -infinity}).set_requires_grad(true);
  const auto out = clipped_surrogate(
      logprob, vec({-1, -1, -infinity}), vec({1, nan, infinity}), mask_of({1, 0, 0}), {});
  out.per_token.sum().backward();
  CHECK(out.per_token.sum().item<double>() == -1);
  CHECK(at::equal(logprob.grad(), vec({-1, 0, 0})));
  CHECK(out.ratio_max.item<double>() == 1);
}

TEST_CASE("an empty batch and one all masked give 0", "[learners][cpu]") {
  const auto empty = clipped_surrogate(vec({}), vec({}), vec({}), mask_of({}), {});
  CHECK(empty.per_token.sum().item<double>() == 0);
  CHECK(empty.ratio_max.item<double>() == 0);
  const auto masked = clipped_surrogate(vec({5}), vec({0}), vec({1}), mask_of({0}), {});
  CHECK(masked.per_token.sum().item<double>() == 0);
  CHECK_THROWS_AS(clipped_surrogate(vec({5}), vec({0, 1}), vec({1}), mask_of({0}), {}), ShapeError);
}

}  // namespace praetor
