#pragma once

#include <ATen/core/Tensor.h>

#include <bit>
#include <cstdint>
#include <string>

#include "core/base/stochastic_rounding.h"

namespace praetor {

/// Stochastic rounding of float32 to bfloat16 (arXiv:1502.02551): x becomes one of its two
/// neighbours, the nearer one the likelier, so that the expectation is x. A running mean whose
/// steps are below half a unit in the last place then still moves.
///
/// The random bits are those of the counter-based generator (core/base/random.h) at the element's
/// index in the whole parameter and the optimizer step, under a key made from the job's seed, the
/// stage and the parameter's name: however parameters are cut over ranks and threads, and wherever
/// a run is resumed, an element is rounded alike.
uint64_t rounding_key(uint64_t job_seed, uint32_t stage, const std::string& parameter);

/// 32 random bits for each of elements [first, first + count): 16 for each of two states.
/// @param step  of the optimizer
void rounding_bits(uint64_t key, int64_t step, int64_t first, int64_t count, uint32_t* bits);

/// The same bits on a device, in int32: the lower half of each for the first state, the upper one
/// for the second.
struct RoundingBits {
  at::Tensor low, high;
};
RoundingBits rounding_bits(
    uint64_t key, int64_t step, int64_t first, int64_t count, at::Device device);

/// Of a float32 tensor as round_stochastically of each element: bfloat16.
/// @param random  int32, below 2^16
at::Tensor round_stochastically(const at::Tensor& x, const at::Tensor& random);

inline float from_bfloat16(uint16_t x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x) << 16);
}

}  // namespace praetor
