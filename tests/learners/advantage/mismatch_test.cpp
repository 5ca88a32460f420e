#include "learners/advantage/mismatch.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::ids;
using testing::mask_of;
using testing::metric;
using testing::vec;

namespace {

const at::Tensor kAll = mask_of({1, 1, 1});

MismatchWeights of(const std::string& correction,
                   double floor,
                   double cap,
                   const at::Tensor& drift,
                   const at::Tensor& sequence_of,
                   const at::Tensor& mask) {
  return mismatch_weights(at::zeros_like(drift),
                          -drift,
                          mask,
                          sequence_of,
                          {.correction = correction, .cap = cap, .floor = floor});
}

}  // namespace

TEST_CASE("a token's weight is cut at the cap: the worked example", "[learners][cpu]") {
  const auto weigh = [&](double cap) {
    return mismatch_weights(vec({-1.0}),
                            vec({-1.8}),
                            mask_of({1}),
                            ids({0}),
                            {.correction = "token_tis", .cap = cap})
        .weight[0]
        .item<double>();
  };
  CHECK(weigh(100) == Approx(2.225541).epsilon(1e-6));
  CHECK(weigh(2) == 2.0);
}

TEST_CASE("weights of every correction", "[learners][cpu]") {
  const at::Tensor drift = vec({std::log(4.0), std::log(0.25), std::log(1.5)});
  const at::Tensor sequences = ids({0, 0, 1});
  CHECK(at::allclose(of("token_tis", 0.5, 2, drift, sequences, kAll).weight, vec({2, 0.5, 1.5})));
  CHECK(at::allclose(of("token_mis", 0.5, 2, drift, sequences, kAll).weight, vec({0, 0, 1.5})));
  // The drifts of the first sequence cancel.
  CHECK(at::allclose(of("sequence_tis", 0, 1.2, drift, sequences, kAll).weight, vec({1, 1, 1.2})));
  const MismatchWeights masked = of("sequence_mask", 0.5, 1.4, drift, sequences, kAll);
  CHECK(at::allclose(masked.weight, vec({1, 1, 0})));
  CHECK(at::equal(masked.mask, mask_of({1, 1, 0})));
  // Geometric mean, not the product: 1.3 twice stays within 1.4.
  const MismatchWeights mean =
      of("sequence_mask", 0.5, 1.4, vec({std::log(1.3), std::log(1.3), 0}), sequences, kAll);
  CHECK(mean.mask.all().item<bool>());
  // The others leave the mask alone.
  CHECK(at::equal(of("token_mis", 0.5, 2, drift, sequences, kAll).mask, kAll));
  CHECK_FALSE(of("none", 0, 2, drift, sequences, kAll).weight.defined());
}

TEST_CASE("what is outside the mask counts for no sequence and may be NaN", "[learners][cpu]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const MismatchWeights w = of("sequence_tis",
                               0,
                               10,
                               vec({std::log(2.0), nan, std::log(3.0)}),
                               ids({0, 0, 0}),
                               mask_of({1, 0, 1}));
  CHECK(at::allclose(w.weight, vec({6, 0, 6})));
  const StepReport report{.metrics = w.metrics};
  CHECK(metric(report, "mismatch/kl_k1") == Approx(-std::log(6.0) / 2));
}

TEST_CASE("the mismatch is measured", "[learners][cpu]") {
  const at::Tensor drift = vec({std::log(4.0), std::log(0.25), std::log(2.0)});
  const MismatchWeights w = of("token_mis", 0.5, 5, drift, ids({0, 1, 1}), kAll);
  const StepReport report{.metrics = w.metrics};
  const double k1 = -std::log(2.0) / 3;
  CHECK(metric(report, "mismatch/kl_k1") == Approx(k1));
  CHECK(metric(report, "mismatch/ppl_ratio") == Approx(std::exp(k1)));
  // exp(d) - 1 - d each.
  CHECK(metric(report, "mismatch/kl_k3") == Approx((4 + 0.25 + 2 - 3) / 3 + k1));
  CHECK(metric(report, "mismatch/weight_mean") == Approx(2));
  CHECK(metric(report, "mismatch/weight_min") == 0);
  CHECK(metric(report, "mismatch/weight_max") == Approx(4));
  CHECK(metric(report, "mismatch/masked_fraction") == Approx(1.0 / 3));
  CHECK(metric(report, "mismatch/effective_samples") == Approx(36.0 / 20));
  // Without a correction what the engine differs by is measured still, weights are not.
  CHECK(of("none", 0, 2, drift, ids({0, 1, 1}), kAll).metrics.size() == 3);
  CHECK(of("token_tis", 0, 2, drift, ids({0, 1, 1}), mask_of({0, 0, 0})).metrics.empty());
  CHECK_THROWS_AS(of("none", 0, 2, drift, ids({0}), kAll), ShapeError);
}

TEST_CASE("the keys of a mismatch are read with their bounds", "[learners][cpu]") {
  const auto read = [](const std::string& text) {
    const auto document = YamlDocument::parse(text);
    const MismatchConfig c = MismatchConfig::from_yaml(document->root());
    return std::pair(c, document->errors().size());
  };
  CHECK(read("{correction: token_mis}").first.floor == 0.5);
  CHECK(read("{correction: sequence_tis}").first.floor == 0);
  CHECK(read("{correction: sequence_mask, floor: 0.99, cap: 1.01}").second == 0);
  CHECK(read("{correction: tis}").second == 1);
  CHECK(read("{cap: 0.5, floor: 0.5}").second == 1);
  CHECK(read("{floor: -1}").second == 1);
  CHECK(read("{capp: 3}").second == 1);
}

}  // namespace praetor
