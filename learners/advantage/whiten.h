#pragma once

#include <ATen/core/Tensor.h>

namespace praetor {

/// Count, mean and sum of squared deviations of numbers seen so far. Two of them merge (Chan et al.
/// 1979), so ranks merge theirs in rank order and never average standard deviations.
struct Moments {
  double count = 0;
  double mean = 0;
  double squares = 0;  ///< sum of (x - mean)^2

  void merge(const Moments& other);
  double variance() const;  ///< Bessel's, squares / (count - 1); 0 for fewer than two numbers
};

/// Moments of the entries of `x` where `mask` (undefined: all) is true, in float64.
/// @throws ShapeError
Moments masked_moments(const at::Tensor& x, const at::Tensor& mask = {});

/// (x - mean) / sqrt(variance + 1e-8), plus the mean again when `shift` is false.
///
/// @param x, mask  [R]; entries outside the mask may be NaN and become 0
/// @param moments  of the whole batch, every rank
/// @param shift    true for advantages; false for rewards, which keep the sign of their mean
/// One single entry has variance 0: it becomes 0 (shift) or stays as it is.
/// @throws ShapeError
at::Tensor whiten(const at::Tensor& x, const at::Tensor& mask, const Moments& moments, bool shift);
at::Tensor whiten(const at::Tensor& x, const at::Tensor& mask, bool shift = true);

}  // namespace praetor
