#pragma once

#include <bit>
#include <cstdint>

#include "core/base/philox.h"

/// Stochastic rounding of float32 to bfloat16 (arXiv:1502.02551; learners/optim/rounding.h says
/// what for), as constant expressions that a GPU's compiler takes too: the processor and GPUs round
/// alike.
namespace praetor {

/// Neighbouring elements that one call of the generator gives their bits.
constexpr int64_t kRoundedTogether = 4;

/// 32 random bits for each of elements [4 group, 4 group + 4) of a whole parameter: the lower 16
/// for its first state, the upper ones for its second.
/// @param step  of the optimizer
constexpr PhiloxWords rounding_words(uint64_t key, int64_t step, int64_t group) {
  const auto g = static_cast<uint64_t>(group), s = static_cast<uint64_t>(step);
  return philox_words({{static_cast<uint32_t>(g),
                        static_cast<uint32_t>(g >> 32),
                        static_cast<uint32_t>(s),
                        static_cast<uint32_t>(s >> 32)}},
                      static_cast<uint32_t>(key),
                      static_cast<uint32_t>(key >> 32));
}

/// @param random  below 2^16, uniform
/// @return the upper half of the float32 that is chosen; infinities and NaN stay what they are
constexpr uint16_t round_stochastically(float x, uint32_t random) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  // A NaN whose upper half says infinity would become one.
  const uint32_t quiet = (bits & 0x007fffffu) != 0 ? 0x00400000u : 0u;
  return static_cast<uint16_t>((finite ? bits + random : bits | quiet) >> 16);
}

}  // namespace praetor
