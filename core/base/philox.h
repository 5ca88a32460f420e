#pragma once

#include <cstdint>

/// The generator behind core/base/random.h, as constant expressions that a GPU's compiler takes
/// too.
namespace praetor {

struct PhiloxWords {
  uint32_t at[4];
};

/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
constexpr PhiloxWords philox_words(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter.at[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter.at[2];
    counter = {{static_cast<uint32_t>(product1 >> 32) ^ counter.at[1] ^ key0,
                static_cast<uint32_t>(product1),
                static_cast<uint32_t>(product0 >> 32) ^ counter.at[3] ^ key1,
                static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return counter;
}

/// 53 bits of the words as a number in [0, 1).
constexpr double unit_interval(const PhiloxWords& words) {
  const uint64_t mantissa = (static_cast<uint64_t>(words.at[0]) << 21) ^ (words.at[1] >> 11);
  return static_cast<double>(mantissa & ((uint64_t{1} << 53) - 1)) * 0x1p-53;
}

}  // namespace praetor
