#include "learners/advantage/mismatch.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "learners/algorithms/policy_objective.h"
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

namespace {

/// Tokens of stale samples: what sampled them, the policy as the update began, and now.
struct Stale {
  at::Tensor behavior, proximal, logprob, advantage;

  /// The decoupled objective: ratios about the proximal policy, weighted by how far that is from
  /// what sampled.
  at::Tensor loss(const at::Tensor& now, double cap = 2) const {
    MicroBatch b;
    b.sequence_of = at::zeros({now.numel()}, at::kLong);
    b.sequences = 1;
    b.mask = at::ones({now.numel()}, at::kBool);
    b.logprob = now;
    b.entropy = at::zeros_like(now);
    b.proximal_logprob = proximal;
    b.denominators = {.tokens = static_cast<double>(now.numel()), .sequences = 1};
    b.advantage =
        advantage *
        mismatch_weights(
            proximal, behavior, b.mask, b.sequence_of, {.correction = "token_tis", .cap = cap})
            .weight;
    return policy_objective(b, {}).loss;
  }
};

}  // namespace

TEST_CASE("the decoupled objective clips about the proximal policy: worked values",
          "[learners][cpu]") {
  // w = min(exp(-1.0 + 1.8), 2) = 2, r = exp(-0.9 + 1.0) = 1.105171: inside the band, -2 r.
  Stale one{vec({-1.8}), vec({-1.0}), vec({-0.9}), vec({1})};
  CHECK(one.loss(one.logprob).item<double>() == Approx(-2.210342).epsilon(1e-6));
  // Uncut, w = 2.225541. A ratio about what sampled, exp(0.9) = 2.46, would be held at 1.2 with no
  // gradient left: one stale step would have frozen the token.
  CHECK(one.loss(one.logprob, 100).item<double>() == Approx(-2.225541 * 1.105171).epsilon(1e-6));
  // r = exp(0.3) = 1.349859 is above the ceiling: -2 x 1.2, and the gradient stops.
  const at::Tensor far = vec({-0.7}).set_requires_grad(true);
  const at::Tensor held = one.loss(far);
  held.backward();
  CHECK(held.item<double>() == Approx(-2.4));
  CHECK(far.grad().item<double>() == 0);
  // A bad token: max(r, 0.8) with A = -1, the weight the same.
  one.advantage = vec({-1});
  CHECK(one.loss(vec({-1.5})).item<double>() == Approx(2 * 0.8));
  // Fresh samples have weight 1: PPO as it was.
  one.behavior = one.proximal;
  CHECK(one.loss(vec({-0.9})).item<double>() == Approx(1.105171).epsilon(1e-6));
}

TEST_CASE("the decoupled objective's gradient is that of differences, the weight a constant",
          "[learners][cpu]") {
  const Stale some{vec({-1.8, -0.7, -2.0, -1.0, -0.4}),
                   vec({-1.0, -0.9, -2.1, -1.5, -0.4}),
                   vec({-0.93, -1.02, -2.3, -1.47, -0.41}),
                   vec({1, -0.5, 2, -1, 0.25})};
  CHECK(testing::gradient_error([&](const at::Tensor& x) { return some.loss(x); }, some.logprob) <
        1e-8);
  // d(loss)/d(logprob) = -w r A / tokens inside the band.
  const at::Tensor x = some.logprob.clone().set_requires_grad(true);
  some.loss(x).backward();
  CHECK(x.grad()[0].item<double>() == Approx(-2 * std::exp(0.07) / 5));
  CHECK(x.grad()[1].item<double>() == Approx(std::exp(-0.2) * std::exp(-0.12) * 0.5 / 5));
}

}  // namespace praetor
