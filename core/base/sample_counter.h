#pragma once

#include <cstdint>

#include "core/base/error.h"
#include "core/base/philox.h"
#include "core/base/random.h"

namespace praetor {

/// What Philox counts for the random number of a token; the key is the job's seed, low half first.
inline PhiloxWords sample_counter(const SampleKey& key, uint32_t position) {
  PRAETOR_CHECK(key.stage < 256 && key.prompt_ordinal < (uint64_t{1} << 48),
                "sample key out of range");
  const uint32_t high = static_cast<uint32_t>(key.prompt_ordinal >> 32) |
                        static_cast<uint32_t>(key.purpose) << 16 | key.stage << 24;
  return {{position, key.sample_index, static_cast<uint32_t>(key.prompt_ordinal), high}};
}

}  // namespace praetor
