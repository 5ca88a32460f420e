#include "learners/algorithms/policy_objective.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "learners/statistics.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::gradient_error;
using testing::ids;
using testing::mask_of;
using testing::vec;

namespace {

/// One sequence, or as `sequence_of` says, whose tokens have these log-ratios and advantage 1.
MicroBatch batch_of(const at::Tensor& log_ratio, const at::Tensor& sequence_of) {
  MicroBatch b;
  b.sequence_of = sequence_of;
  b.sequences = sequence_of[-1].item<int64_t>() + 1;
  b.mask = at::ones_like(sequence_of, at::kBool);
  b.proximal_logprob = at::full_like(log_ratio, -1.5);
  b.reference_logprob = b.proximal_logprob - 0.2;
  b.logprob = b.proximal_logprob + log_ratio;
  b.entropy = at::full_like(log_ratio, 0.7);
  b.advantage = at::ones_like(log_ratio);
  b.denominators = {.tokens = static_cast<double>(log_ratio.numel()),
                    .sequences = static_cast<double>(b.sequences)};
  return b;
}

double statistic(const LossResult& result, const char* name) {
  Statistics all;
  all.add(result.statistics);
  return all.value(name).value();
}

PolicyObjective gspo_like() {
  return {.clip = {3e-4, 4e-4},
          .ratio = RatioKind::kSequenceMean,
          .aggregation = Aggregation::kSeqMeanTokenMean};
}

}  // namespace

TEST_CASE("the ratio of a whole sequence has its worked value", "[learners][cpu]") {
  const MicroBatch b = batch_of(vec({0.1, -0.05, 0.2}), ids({0, 0, 0}));
  const auto ratio = [&](RatioKind kind) {
    return sequence_log_ratio(
               b.logprob, b.proximal_logprob, b.mask, b.sequence_of, b.sequences, kind)
        .exp();
  };
  CHECK(
      at::allclose(ratio(RatioKind::kSequenceMean), at::full({3}, 1.086904, at::kDouble), 0, 1e-6));
  CHECK(at::allclose(ratio(RatioKind::kSequence), at::full({3}, std::exp(0.25), at::kDouble)));
  // With advantage 1 the ceiling holds: the objective is 1.0004.
  CHECK(policy_objective(b, gspo_like()).loss.item<double>() == Approx(-1.0004));
}

TEST_CASE("the mean log-ratio is bounded above", "[learners][cpu]") {
  const MicroBatch b = batch_of(vec({30, 10}), ids({0, 0}));
  CHECK(sequence_log_ratio(
            b.logprob, b.proximal_logprob, b.mask, b.sequence_of, 1, RatioKind::kSequenceMean)[0]
            .item<double>() == 10);
}

TEST_CASE("the sequence form has the gradient of its token form", "[learners][cpu]") {
  // s_it = sg[s_i] exp(l_t - sg[l_t]), averaged over the tokens, then the sequences.
  MicroBatch b = batch_of(vec({0.1, -0.05, 0.2, -0.3}), ids({0, 0, 0, 1}));
  b.advantage = vec({1, 1, 1, -2});
  PolicyObjective wide = gspo_like();
  wide.clip = {0.9, 9};
  b.logprob = b.logprob.detach().set_requires_grad(true);
  policy_objective(b, wide).loss.backward();
  const at::Tensor token = b.logprob.detach().clone().set_requires_grad(true);
  const at::Tensor s =
      sequence_log_ratio(
          token.detach(), b.proximal_logprob, b.mask, b.sequence_of, 2, RatioKind::kSequenceMean)
          .exp();
  const at::Tensor form = s * (token - token.detach()).exp() * b.advantage;
  (-(form.slice(0, 0, 3).mean() + form.slice(0, 3).mean()) / 2).backward();
  CHECK(at::allclose(b.logprob.grad(), token.grad(), 0, 1e-12));
}

TEST_CASE("a sequence ratio on policy is REINFORCE", "[learners][cpu]") {
  // At ratio 1 the gradient of -rho A is that of -L A: -A for every token, over two sequences.
  MicroBatch b = batch_of(vec({0, 0, 0}), ids({0, 0, 1}));
  b.advantage = vec({2, 2, -1});
  b.logprob = b.logprob.detach().set_requires_grad(true);
  policy_objective(b,
                   {.ratio = RatioKind::kSequence, .aggregation = Aggregation::kSeqMeanTokenMean})
      .loss.backward();
  CHECK(at::allclose(b.logprob.grad(), vec({-1, -1, 0.5})));
}

TEST_CASE("gradients of every ratio and aggregation are those of differences", "[learners][cpu]") {
  MicroBatch b = batch_of(vec({0.11, -0.07, 0.05, -0.31, 0.4, 0.02}), ids({0, 0, 0, 1, 2, 2}));
  b.mask = mask_of({1, 1, 0, 1, 1, 1});
  b.advantage = vec({1, 1, 1, -2, 0.5, 0.5});
  b.denominators = {.tokens = 5, .sequences = 3};
  const at::Tensor at_point = b.logprob;
  for (const RatioKind ratio :
       {RatioKind::kToken, RatioKind::kSequence, RatioKind::kSequenceMean}) {
    for (const std::string& aggregation : aggregation_names()) {
      const PolicyObjective settings{.clip = {0.2, 0.28, 3},
                                     .ratio = ratio,
                                     .aggregation = aggregation_from_name(aggregation),
                                     .max_tokens = 4,
                                     .entropy_coefficient = 0.1,
                                     .kl_form = kl_form_from_name("k3"),
                                     .kl_coefficient = 0.3};
      INFO(aggregation << ", ratio " << static_cast<int>(ratio));
      CHECK(gradient_error(
                [&](const at::Tensor& logprob) {
                  b.logprob = logprob;
                  return policy_objective(b, settings).loss;
                },
                at_point) < 1e-8);
    }
  }
}

TEST_CASE("KL and entropy are aggregated as the policy term is", "[learners][cpu]") {
  const MicroBatch b = batch_of(vec({0, 0, 0}), ids({0, 0, 1}));
  // k3 at a = 0.2 is 0.0187308; lengths 2 and 1.
  const double token = -1 + 10 * 0.018730753 - 0.5 * 0.7;
  PolicyObjective s{
      .entropy_coefficient = 0.5, .kl_form = kl_form_from_name("k3"), .kl_coefficient = 10};
  CHECK(policy_objective(b, s).loss.item<double>() == Approx(token).epsilon(1e-7));
  s.aggregation = Aggregation::kSeqMeanTokenSum;
  CHECK(policy_objective(b, s).loss.item<double>() == Approx(1.5 * token).epsilon(1e-7));
  CHECK(statistic(policy_objective(b, s), "policy/loss") == Approx(1.5 * token).epsilon(1e-7));
  s.aggregation = Aggregation::kSeqMeanTokenSumNorm;
  s.max_tokens = 10;
  CHECK(policy_objective(b, s).loss.item<double>() == Approx(0.15 * token).epsilon(1e-7));
}

TEST_CASE("statistics of a sequence ratio", "[learners][cpu]") {
  MicroBatch b = batch_of(vec({0.1, -0.05, 0.2, -0.1}), ids({0, 0, 0, 1}));
  b.advantage = vec({1, 1, 1, -1});
  const LossResult r = policy_objective(b, gspo_like());
  CHECK(statistic(r, "policy/clip_fraction_high") == 0.75);
  CHECK(statistic(r, "policy/clip_fraction_low") == 0.25);
  CHECK(statistic(r, "policy/ratio_max") == Approx(1.086904).epsilon(1e-6));
  CHECK(statistic(r, "policy/ratio_error") ==
        Approx((3 * 0.086904 + 1 - std::exp(-0.1)) / 4).epsilon(1e-5));
  // The distance to the proximal policy stays a token's.
  CHECK(statistic(r, "policy/approx_kl_k2") == Approx((0.01 + 0.0025 + 0.04 + 0.01) / 8));
}

TEST_CASE("ratios have names", "[learners][cpu]") {
  for (size_t i = 0; i < ratio_names().size(); ++i)
    CHECK(ratio_from_name(ratio_names()[i]) == static_cast<RatioKind>(i));
  CHECK_THROWS_AS(ratio_from_name("tokens"), InvalidArgument);
}

}  // namespace praetor
