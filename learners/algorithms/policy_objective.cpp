#include "learners/algorithms/policy_objective.h"

#include <ATen/ATen.h>

#include "core/base/error.h"
#include "core/base/text.h"
#include "learners/algorithms/checks.h"

namespace praetor {
namespace {

/// Keeps a ratio of long sequences finite; beyond it nothing is learned anyway.
constexpr double kLargestMeanLogRatio = 10;

PolicyLoss surrogate(const MicroBatch& b, const PolicyObjective& s) {
  PolicyLoss tokens = clipped_surrogate(b.logprob, b.proximal_logprob, b.advantage, b.mask, s.clip);
  if (s.ratio == RatioKind::kToken) return tokens;
  const at::Tensor log_ratio = sequence_log_ratio(
      b.logprob, b.proximal_logprob, b.mask, b.sequence_of, b.sequences, s.ratio);
  PolicyLoss out =
      clipped_surrogate(log_ratio, at::zeros_like(log_ratio), b.advantage, b.mask, s.clip);
  out.approx_kl = tokens.approx_kl;
  out.approx_kl_k2 = tokens.approx_kl_k2;
  return out;
}

/// What the step's loss was divided by, and this micro-batch's part of it.
struct Share {
  double whole = 0;
  double part = 0;
};

Share share_of(const MicroBatch& b, Aggregation mode) {
  if (mode == Aggregation::kTokenMean) return {b.denominators.tokens, b.mask.sum().item<double>()};
  const at::Tensor lengths = segment_sum(b.mask.to(at::kLong), b.sequence_of, b.sequences);
  return {b.denominators.sequences, lengths.gt(0).sum().item<double>()};
}

}  // namespace

const std::vector<std::string>& ratio_names() {
  static const std::vector<std::string> kNames{"token", "sequence", "sequence_mean"};
  return kNames;
}

RatioKind ratio_from_name(const std::string& name) {
  for (size_t i = 0; i < ratio_names().size(); ++i) {
    if (ratio_names()[i] == name) return static_cast<RatioKind>(i);
  }
  throw InvalidArgument("ratio \"", name, "\" is not known; there are ", join(ratio_names(), ", "));
}

at::Tensor sequence_log_ratio(const at::Tensor& logprob,
                              const at::Tensor& proximal_logprob,
                              const at::Tensor& mask,
                              const at::Tensor& sequence_of,
                              int64_t sequences,
                              RatioKind kind) {
  require_same_shape(
      "sequence_log_ratio",
      logprob,
      {{"proximal_logprob", proximal_logprob}, {"mask", mask}, {"sequence_of", sequence_of}});
  const at::Tensor off = mask.logical_not();
  const at::Tensor per_token =
      logprob.masked_fill(off, 0.0) - proximal_logprob.masked_fill(off, 0.0);
  at::Tensor sums = segment_sum(per_token, sequence_of, sequences);
  if (kind == RatioKind::kSequenceMean) {
    const at::Tensor lengths = segment_sum(mask.to(sums.scalar_type()), sequence_of, sequences);
    sums = (sums / lengths.clamp_min(1)).clamp_max(kLargestMeanLogRatio);
  }
  return sums.index_select(0, sequence_of);
}

LossResult policy_objective(const MicroBatch& b, const PolicyObjective& settings) {
  const auto reduce = [&](const at::Tensor& per_token) {
    return aggregate(per_token,
                     b.mask,
                     b.sequence_of,
                     b.denominators,
                     settings.aggregation,
                     settings.max_tokens);
  };
  const PolicyLoss policy = surrogate(b, settings);
  LossResult out;
  out.loss = reduce(policy.per_token);
  if (settings.kl_coefficient > 0) {
    out.loss = out.loss + settings.kl_coefficient *
                              reduce(kl_loss_per_token(
                                  b.logprob, b.reference_logprob, b.mask, settings.kl_form));
  }
  if (settings.entropy_coefficient > 0)
    out.loss = out.loss - settings.entropy_coefficient * reduce(b.entropy);

  // Each is this micro-batch's share: weights are given so that sums over the step are its means.
  const Share loss = share_of(b, settings.aggregation);
  const double tokens = b.mask.sum().item<double>();
  const auto mean = [&](const char* name, const at::Tensor& sum) {
    return Statistic{name, sum.item<double>(), tokens};
  };
  out.statistics = {
      {"policy/loss", (out.loss.detach() * loss.whole).item<double>(), loss.part},
      mean("policy/approx_kl", policy.approx_kl),
      mean("policy/approx_kl_k2", policy.approx_kl_k2),
      mean("policy/clip_fraction_low", policy.clipped_low),
      mean("policy/clip_fraction_high", policy.clipped_high),
      mean("policy/entropy", b.entropy.detach().masked_fill(b.mask.logical_not(), 0.0).sum()),
      mean("policy/ratio_error", policy.ratio_error),
      {"policy/ratio_max", policy.ratio_max.item<double>(), 1, Statistic::Kind::kMax},
  };
  return out;
}

}  // namespace praetor
