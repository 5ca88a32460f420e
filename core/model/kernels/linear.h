#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>

#include "core/model/weight_kind.h"

namespace praetor::ops::kernels {

/// x [M,K] times weight [N,K] transposed plus bias, float32 on CPU (the weight: or bfloat16): each
/// element one fused multiply-add chain over K in ascending order from 0, then times the column's
/// scale where the kind has one, the bias added last. The product is by the weight's values in
/// `kind`.
at::Tensor linear(const at::Tensor& x,
                  const at::Tensor& weight,
                  const at::Tensor& bias,
                  WeightKind kind = WeightKind::kFloat32);

/// One of several weights for the same rows.
struct Product {
  const at::Tensor& weight;  ///< [N,K]
  const at::Tensor& bias;    ///< [N], or undefined
  float* y;                  ///< [m,N], written
  WeightKind kind = WeightKind::kFloat32;
};
/// The same for each weight and the rows x [m,K], `ldx` floats apart; handed out to threads
/// together.
void products(const float* x, int64_t ldx, int64_t m, std::initializer_list<Product> all);

}  // namespace praetor::ops::kernels
