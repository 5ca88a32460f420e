#include "learners/algorithms/clipped_surrogate.h"

#include <ATen/ATen.h>

#include "learners/algorithms/checks.h"

namespace praetor {

PolicyLoss clipped_surrogate(const at::Tensor& logprob,
                             const at::Tensor& proximal_logprob,
                             const at::Tensor& advantage,
                             const at::Tensor& mask,
                             ClipRange clip) {
  require_same_shape(
      "clipped_surrogate",
      logprob,
      {{"proximal_logprob", proximal_logprob}, {"advantage", advantage}, {"mask", mask}});
  // Fill before exp: 0 * inf is NaN, so masking the product alone would leak padding.
  const at::Tensor off = mask.logical_not();
  const at::Tensor log_ratio =
      (logprob.masked_fill(off, 0.0) - proximal_logprob.masked_fill(off, 0.0)).clamp(-20, 20);
  const at::Tensor ratio = log_ratio.exp();
  const at::Tensor gain = advantage.masked_fill(off, 0.0);
  const at::Tensor plain = ratio * gain;
  const at::Tensor bounded = ratio.clamp(1 - clip.low, 1 + clip.high) * gain;
  at::Tensor objective = plain.minimum(bounded);
  if (clip.dual > 0) {
    objective = at::where(gain.lt(0), objective.maximum(clip.dual * gain), objective);
  }

  PolicyLoss out;
  out.per_token = -objective;
  const at::Tensor r = ratio.detach();
  const at::Tensor a = log_ratio.detach();
  const at::Tensor active = bounded.detach().lt(plain.detach());
  out.clipped_low = active.logical_and(r.lt(1)).sum();
  out.clipped_high = active.logical_and(r.gt(1)).sum();
  // The ratio is policy over proximal and the samples are the proximal policy's: k3 = r - 1 - log
  // r.
  out.approx_kl = (a.expm1() - a).sum();
  out.approx_kl_k2 = (a.square() / 2).sum();
  out.ratio_error = (r - 1).abs().sum();
  out.ratio_max = r.numel() == 0 ? at::zeros({}, r.options()) : r.masked_fill(off, 0.0).max();
  return out;
}

}  // namespace praetor
