#include "learners/optim/rounding.h"

#include <array>
#include <cstddef>
#include <span>

#include "core/base/random.h"
#include "core/base/sha256.h"
#include "core/base/str.h"

namespace praetor {
namespace {

/// One call of the generator gives this many elements their bits.
constexpr int64_t kTogether = 4;

std::array<uint32_t, 4> four(uint64_t key, int64_t step, int64_t group) {
  const auto g = static_cast<uint64_t>(group), s = static_cast<uint64_t>(step);
  return philox({static_cast<uint32_t>(g),
                 static_cast<uint32_t>(g >> 32),
                 static_cast<uint32_t>(s),
                 static_cast<uint32_t>(s >> 32)},
                {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
}

}  // namespace

uint64_t rounding_key(uint64_t job_seed, uint32_t stage, const std::string& parameter) {
  Sha256 digest;
  digest.update(str("stochastic rounding/", job_seed, "/", stage, "/", parameter));
  return std::stoull(digest.hex().substr(0, 16), nullptr, 16);
}

void rounding_bits(uint64_t key, int64_t step, int64_t first, int64_t count, uint32_t* bits) {
  int64_t i = 0;
  while (i < count) {
    const int64_t at = (first + i) % kTogether;
    const std::array<uint32_t, 4> drawn = four(key, step, (first + i) / kTogether);
    for (int64_t k = at; k < kTogether && i < count; ++k) bits[i++] = drawn[static_cast<size_t>(k)];
  }
}

}  // namespace praetor
