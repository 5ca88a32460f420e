#pragma once

#include <bit>
#include <cstdint>

namespace praetor {

/// exp(x) for x <= 0, relative error below 2e-7; 0 below -87, where float32 leaves its normal
/// range. Cephes' polynomial in plain multiplications and additions, exactly 1 at 0: the same bits
/// on every machine that rounds each of them (no contraction into fused operations), a GPU among
/// them.
constexpr float exp_nonpositive(float x) {
  const float bounded = x < -87.0F ? -87.0F : x;
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
  const float shifted = bounded * 1.44269504F + 12582912.0F;
  const float k = shifted - 12582912.0F;
  const float r = (bounded - k * 0.693359375F) - k * -2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  const uint32_t scale = (std::bit_cast<uint32_t>(shifted) - 0x4B400000U + 127U) << 23;
  const float result = p * std::bit_cast<float>(scale);
  return x < -87.0F ? 0.0F : result;
}

}  // namespace praetor
