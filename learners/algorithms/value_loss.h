#pragma once

#include <ATen/core/Tensor.h>

namespace praetor {

struct ValueLoss {
  at::Tensor per_token;  ///< [R] carries the gradient; 0 outside the mask
  at::Tensor clipped;    ///< masked tokens where the clipped value gave the larger error
};

/// Squared error of the critic with its step clipped (arXiv:1707.06347's code, arXiv:2005.12729),
/// before aggregation.
///
///   V_c = old + clip(V - old, -clip, clip);   f_t = max((V - G)^2, (V_c - G)^2) / 2
///
/// @param value      [R] critic in training; carries the gradient
/// @param old_value  [R] critic at the start of the update; constant
/// @param returns    [R] targets; constant
/// @param mask       [R] bool; outside it anything may be NaN
/// @param clip       0: no clipping
/// @throws ShapeError
ValueLoss value_loss(const at::Tensor& value,
                     const at::Tensor& old_value,
                     const at::Tensor& returns,
                     const at::Tensor& mask,
                     double clip);

}  // namespace praetor
