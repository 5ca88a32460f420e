#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace praetor::ops::kernels {

/// x [M,K] times weight [N,K] transposed plus bias, float32 on CPU: each element one fused
/// multiply-add chain over K in ascending order from 0, the bias added last.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace praetor::ops::kernels
