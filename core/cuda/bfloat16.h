#pragma once

#include <bit>
#include <cstdint>

#include "core/cuda/block.h"

namespace praetor::cuda {

/// The upper half of a float32: what weights, keys and values are held in on a GPU. Bits as
/// at::BFloat16 and __nv_bfloat16.
struct Bfloat16 {
  uint16_t bits;
};

PRAETOR_HD constexpr float to_float(Bfloat16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

/// To the nearest, of two equally near the even one; NaN stays NaN.
PRAETOR_HD constexpr Bfloat16 to_bfloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (x != x) return {static_cast<uint16_t>((bits >> 16) | 0x40U)};
  return {static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16)};
}

/// Two numbers side by side, the first in the lower half, as memory has them.
PRAETOR_HD constexpr float low_of(uint32_t pair) {
  return std::bit_cast<float>(pair << 16);
}
PRAETOR_HD constexpr float high_of(uint32_t pair) {
  return std::bit_cast<float>(pair & 0xFFFF0000U);
}

}  // namespace praetor::cuda
