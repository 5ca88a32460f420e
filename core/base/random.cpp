#include "core/base/random.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "core/base/error.h"

namespace praetor {

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9;
  constexpr uint32_t kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

double uniform(const SampleKey& key, uint32_t position) {
  PRAETOR_CHECK(key.stage < 256 && key.prompt_ordinal < (uint64_t{1} << 48),
                "sample key out of range");
  const uint32_t high = static_cast<uint32_t>(key.prompt_ordinal >> 32) |
                        static_cast<uint32_t>(key.purpose) << 16 | key.stage << 24;
  const auto bits =
      philox({position, key.sample_index, static_cast<uint32_t>(key.prompt_ordinal), high},
             {static_cast<uint32_t>(key.job_seed), static_cast<uint32_t>(key.job_seed >> 32)});
  const uint64_t mantissa = (static_cast<uint64_t>(bits[0]) << 21) ^ (bits[1] >> 11);
  return static_cast<double>(mantissa & ((uint64_t{1} << 53) - 1)) * 0x1p-53;
}

double RandomStream::uniform() {
  return praetor::uniform(key_, position_++);
}

uint64_t RandomStream::below(uint64_t bound) {
  PRAETOR_CHECK(bound >= 1, "empty range");
  return static_cast<uint64_t>(uniform() * static_cast<double>(bound));
}

double RandomStream::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

std::vector<int64_t> RandomStream::permutation(int64_t n) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[below(i)]);
  return order;
}

}  // namespace praetor
