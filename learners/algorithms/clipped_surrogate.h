#pragma once

#include <ATen/core/Tensor.h>

namespace praetor {

/// The ratio's band is [1 - low, 1 + high].
struct ClipRange {
  double low = 0.2;
  double high = 0.2;
  double dual = 0;  ///< c > 1: the loss of a negative advantage is at most -c A; 0: off
};

/// Losses per token, and sums over the masked tokens of what is reported.
struct PolicyLoss {
  at::Tensor per_token;     ///< [R] carries the gradient; 0 outside the mask
  at::Tensor clipped_low;   ///< tokens where the floor was active
  at::Tensor clipped_high;  ///< tokens where the ceiling was active
  at::Tensor approx_kl;     ///< k3 to the proximal policy, never negative
  at::Tensor approx_kl_k2;
  at::Tensor ratio_error;  ///< |r - 1|
  at::Tensor ratio_max;    ///< largest r, 0 when nothing is masked in
};

/// Clipped policy surrogate of PPO, negated for minimisation (arXiv:1707.06347, eq. 7), before
/// aggregation.
///
///   r_t = exp(clamp(logprob_t - proximal_logprob_t, -20, 20))
///   f_t = -min(r_t A_t, clip(r_t, 1 - low, 1 + high) A_t)
///   and where A_t < 0, with `dual`:  f_t = -max(min(...), dual A_t)     (arXiv:1912.09729)
///
/// @param logprob           [R] nats, policy in training; carries the gradient
/// @param proximal_logprob  [R] nats, the learner's at the start of the update; constant
/// @param advantage         [R] constant
/// @param mask              [R] bool, true on response tokens that count
/// @throws ShapeError when the four shapes differ
///
/// Values outside the mask may be NaN; they reach neither the loss nor the gradient.
PolicyLoss clipped_surrogate(const at::Tensor& logprob,
                             const at::Tensor& proximal_logprob,
                             const at::Tensor& advantage,
                             const at::Tensor& mask,
                             ClipRange clip);

}  // namespace praetor
