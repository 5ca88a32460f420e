#pragma once

#include <ATen/core/Tensor.h>

namespace praetor {

struct GaeConfig {
  double gamma = 1.0;    ///< discount, [0, 1]
  double lambda = 0.95;  ///< [0, 1]
};

struct Gae {
  at::Tensor advantage;  ///< [R], not whitened; 0 outside the mask
  at::Tensor returns;    ///< [R] advantage + value, the critic's target; 0 outside the mask
};

/// Generalised advantage estimation within each sequence (arXiv:1506.02438).
///
///   delta_t = reward_t + gamma V_{t+1} - V_t;   A_t = delta_t + gamma lambda A_{t+1};   G_t = A_t
///   + V_t
///
/// After the last token of sequence i stands V = bootstrap[i], or 0 where bootstrap is undefined.
/// Tokens outside the mask (tool output inside a response) pass V_{t+1} and A_{t+1} on unchanged;
/// their values may be NaN.
///
/// @param reward, value  [R], same dtype; the recursion runs in float64
/// @param sequence_of    [R] int64, ascending
/// @param mask           [R] bool, or undefined: all
/// @param bootstrap      [N] value after the last token, or undefined
/// @throws ShapeError when shapes differ or sequence_of descends
Gae gae(const at::Tensor& reward,
        const at::Tensor& value,
        const at::Tensor& sequence_of,
        GaeConfig config,
        const at::Tensor& mask = {},
        const at::Tensor& bootstrap = {});

}  // namespace praetor
