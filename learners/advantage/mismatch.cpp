#include "learners/advantage/mismatch.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/str.h"
#include "learners/algorithms/checks.h"

namespace praetor {
namespace {

double number(const at::Tensor& t) {
  return t.item<double>();
}

/// Sums of `x` over the sequences, laid out per token again.
at::Tensor sums_per_token(const at::Tensor& x, const at::Tensor& sequence_of) {
  if (x.numel() == 0) return x;
  return segment_sum(x, sequence_of, sequence_of[-1].item<int64_t>() + 1)
      .index_select(0, sequence_of);
}

}  // namespace

MismatchConfig MismatchConfig::from_yaml(YamlReader in) {
  MismatchConfig c;
  c.correction = in.get("correction",
                        c.correction,
                        {"none", "token_tis", "token_mis", "sequence_tis", "sequence_mask"});
  if (c.correction == "token_mis" || c.correction == "sequence_mask") c.floor = 0.5;
  c.cap = in.get("cap", c.cap, greater_than(0));
  c.floor = in.get("floor", c.floor, at_least(0));
  if (c.floor >= c.cap)
    in.error_at(in.has("floor") ? "floor" : "cap",
                str("the floor ", c.floor, " must be below the cap ", c.cap));
  in.reject_unknown_keys();
  return c;
}

MismatchWeights mismatch_weights(const at::Tensor& proximal_logprob,
                                 const at::Tensor& behavior_logprob,
                                 const at::Tensor& mask,
                                 const at::Tensor& sequence_of,
                                 const MismatchConfig& config) {
  require_same_shape(
      "mismatch_weights",
      proximal_logprob,
      {{"behavior_logprob", behavior_logprob}, {"mask", mask}, {"sequence_of", sequence_of}});
  MismatchWeights out;
  out.mask = mask;
  const double tokens = number(mask.sum());
  if (tokens == 0) return out;
  const at::Tensor off = mask.logical_not();
  const at::Tensor drift = (proximal_logprob.detach() - behavior_logprob)
                               .to(at::kDouble)
                               .masked_fill(off, 0.0)
                               .clamp(-20, 20);
  // The samples are the engine's: KL(behavior || proximal), with a = behavior - proximal = -drift.
  const double k1 = -number(drift.sum()) / tokens;
  out.metrics.emplace_back("mismatch/kl_k1", k1);
  out.metrics.emplace_back("mismatch/kl_k3", number((drift.expm1() - drift).sum()) / tokens);
  out.metrics.emplace_back("mismatch/ppl_ratio", std::exp(k1));
  if (config.correction == "none") return out;

  const auto outside = [&](const at::Tensor& ratio) {
    return ratio.lt(config.floor).logical_or(ratio.gt(config.cap));
  };
  at::Tensor weight;
  if (config.correction == "token_tis") {
    weight = drift.exp().clamp(config.floor, config.cap);
  } else if (config.correction == "token_mis") {
    weight = drift.exp();
    weight = weight.masked_fill(outside(weight), 0.0);
  } else if (config.correction == "sequence_tis") {
    weight = sums_per_token(drift, sequence_of).clamp(-20, 20).exp();
    weight = weight.clamp(config.floor, config.cap);
  } else {
    const at::Tensor lengths = sums_per_token(mask.to(at::kDouble), sequence_of).clamp_min(1);
    const at::Tensor dropped = outside((sums_per_token(drift, sequence_of) / lengths).exp());
    out.mask = mask.logical_and(dropped.logical_not());
    weight = at::ones_like(drift).masked_fill(dropped, 0.0);
  }
  weight = weight.masked_fill(off, 0.0);
  const at::Tensor counted = weight.masked_select(mask);
  const double sum = number(counted.sum()), squares = number(counted.square().sum());
  out.metrics.emplace_back("mismatch/weight_mean", sum / tokens);
  out.metrics.emplace_back("mismatch/weight_min", number(counted.min()));
  out.metrics.emplace_back("mismatch/weight_max", number(counted.max()));
  out.metrics.emplace_back("mismatch/masked_fraction", number(counted.eq(0).sum()) / tokens);
  out.metrics.emplace_back("mismatch/effective_samples", squares > 0 ? sum * sum / squares : 0);
  out.weight = weight.to(proximal_logprob.scalar_type());
  return out;
}

}  // namespace praetor
