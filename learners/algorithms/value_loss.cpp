#include "learners/algorithms/value_loss.h"

#include <ATen/ATen.h>

#include "learners/algorithms/checks.h"

namespace praetor {

ValueLoss value_loss(const at::Tensor& value,
                     const at::Tensor& old_value,
                     const at::Tensor& returns,
                     const at::Tensor& mask,
                     double clip) {
  require_same_shape(
      "value_loss", value, {{"old_value", old_value}, {"returns", returns}, {"mask", mask}});
  const at::Tensor off = mask.logical_not();
  const at::Tensor v = value.masked_fill(off, 0.0);
  const at::Tensor target = returns.masked_fill(off, 0.0);
  const at::Tensor plain = (v - target).square();
  if (clip == 0) return {plain / 2, at::zeros({}, mask.options().dtype(at::kLong))};
  const at::Tensor old = old_value.masked_fill(off, 0.0);
  const at::Tensor bounded = (old + (v - old).clamp(-clip, clip) - target).square();
  return {plain.maximum(bounded) / 2, bounded.detach().gt(plain.detach()).sum()};
}

}  // namespace praetor
