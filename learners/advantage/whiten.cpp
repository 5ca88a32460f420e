#include "learners/advantage/whiten.h"

#include <ATen/ATen.h>

#include <cmath>

#include "learners/algorithms/checks.h"

namespace praetor {

void Moments::merge(const Moments& other) {
  const double total = count + other.count;
  if (total == 0) return;
  const double delta = other.mean - mean;
  squares += other.squares + delta * delta * count * other.count / total;
  mean += delta * other.count / total;
  count = total;
}

double Moments::variance() const {
  return count < 2 ? 0.0 : squares / (count - 1);
}

Moments masked_moments(const at::Tensor& x, const at::Tensor& mask) {
  at::Tensor kept = x.detach().to(at::kDouble);
  if (mask.defined()) {
    require_same_shape("masked_moments", x, {{"mask", mask}});
    kept = kept.masked_select(mask);
  }
  Moments out;
  out.count = static_cast<double>(kept.numel());
  if (kept.numel() == 0) return out;
  out.mean = kept.mean().item<double>();
  out.squares = (kept - out.mean).square().sum().item<double>();
  return out;
}

at::Tensor whiten(const at::Tensor& x, const at::Tensor& mask, const Moments& moments, bool shift) {
  require_same_shape("whiten", x, {{"mask", mask}});
  const double scale = 1.0 / std::sqrt(moments.variance() + 1e-8);
  const double back = shift ? 0.0 : moments.mean;
  return ((x - moments.mean) * scale + back).masked_fill(mask.logical_not(), 0.0);
}

at::Tensor whiten(const at::Tensor& x, const at::Tensor& mask, bool shift) {
  require_same_shape("whiten", x, {{"mask", mask}});
  return whiten(x, mask, masked_moments(x, mask), shift);
}

}  // namespace praetor
