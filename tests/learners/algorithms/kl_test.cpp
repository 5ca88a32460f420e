#include "learners/algorithms/kl.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "learners/algorithms/kl_controller.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::gradient_error;
using testing::mask_of;
using testing::vec;

TEST_CASE("the three estimators of the worked example", "[learners][cpu]") {
  const auto policy = vec({-1.0}), reference = vec({-1.2});
  CHECK(kl_per_token(policy, reference, KlEstimator::kK1).item<double>() == Approx(0.2));
  CHECK(kl_per_token(policy, reference, KlEstimator::kK2).item<double>() == Approx(0.02));
  CHECK(kl_per_token(policy, reference, KlEstimator::kK3).item<double>() ==
        Approx(0.018730753).epsilon(1e-7));
}

TEST_CASE("k3 of a tiny float32 difference is not lost to cancellation", "[learners][cpu]") {
  const at::Tensor a = at::full({1}, 1e-4, at::kFloat);
  const double k3 = kl_per_token(a, at::zeros({1}), KlEstimator::kK3).item<double>();
  CHECK(k3 >= 0);
  CHECK(k3 == Approx(5e-9).margin(4e-9));
}

TEST_CASE("the log-ratio is clamped before exp and k3 again in a loss", "[learners][cpu]") {
  const auto policy = vec({-1000}), reference = vec({0});
  CHECK(kl_per_token(policy, reference, KlEstimator::kK3).item<double>() ==
        Approx(std::exp(20.0) - 21));
  const auto loss = kl_loss_per_token(policy, reference, mask_of({1}), {KlEstimator::kK3, false});
  CHECK(loss.item<double>() == 10);
}

TEST_CASE("gradients of the KL losses agree with finite differences", "[learners][cpu]") {
  const auto policy = vec({-1.0, -0.3, -2.5}), reference = vec({-1.2, -0.1, -2.0});
  for (const KlEstimator estimator : {KlEstimator::kK1, KlEstimator::kK2, KlEstimator::kK3}) {
    const auto loss = [&](const at::Tensor& x) {
      return kl_loss_per_token(x, reference, mask_of({1, 0, 1}), {estimator, false}).sum();
    };
    CHECK(gradient_error(loss, policy) < 1e-8);
  }
}

TEST_CASE("the straight-through form has the value asked for and the gradient of k2",
          "[learners][cpu]") {
  const at::Tensor policy = vec({-1.0}).set_requires_grad(true);
  const auto loss = kl_loss_per_token(policy, vec({-1.2}), mask_of({1}), kl_form_from_name("k3+"));
  loss.sum().backward();
  CHECK(loss.item<double>() == Approx(0.018730753));
  CHECK(policy.grad().item<double>() == Approx(0.2));
}

TEST_CASE("NaN outside the mask reaches neither KL loss nor gradient", "[learners][cpu]") {
  const at::Tensor policy = vec({-1.0, std::nan("")}).set_requires_grad(true);
  const auto reference = vec({-1.2, -std::numeric_limits<double>::infinity()});
  for (const char* name : {"k1", "k2", "k3", "k1+", "k3+"}) {
    policy.mutable_grad() = at::Tensor();
    const auto loss =
        kl_loss_per_token(policy, reference, mask_of({1, 0}), kl_form_from_name(name));
    loss.sum().backward();
    CHECK(loss[1].item<double>() == 0);
    CHECK(policy.grad()[1].item<double>() == 0);
    CHECK(std::isfinite(policy.grad()[0].item<double>()));
  }
}

TEST_CASE("an unknown estimator is named with the known ones", "[learners][cpu]") {
  CHECK_THROWS_WITH(kl_form_from_name("k4"), Catch::Contains("k4") && Catch::Contains("k3+"));
  CHECK_THROWS_AS(kl_per_token(vec({1}), vec({1, 2}), KlEstimator::kK1), ShapeError);
}

TEST_CASE("the adaptive coefficient of the worked example, and its limits", "[learners][cpu]") {
  KlController controller = KlController::adaptive(0.2, 6, 10000);
  controller.update(9, 256);
  CHECK(controller.coefficient() == Approx(0.201024));
  // Below the target the error is held at -0.2.
  controller = KlController::adaptive(0.2, 6, 10000);
  controller.update(0, 256);
  CHECK(controller.coefficient() == Approx(0.2 * (1 - 0.2 * 0.0256)));
  KlController fixed = KlController::fixed(0.2);
  fixed.update(100, 256);
  CHECK(fixed.coefficient() == 0.2);
  CHECK_THROWS_AS(KlController::adaptive(0.2, 0, 10000), InvalidArgument);
  CHECK_THROWS_AS(KlController::adaptive(0.2, 6, -1), InvalidArgument);
}

}  // namespace praetor
