#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace praetor {

/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a keyed
/// bijection of 128-bit counters. Stateless, so that a number depends on its key and counter alone.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// What a random number is for; part of its key, so that two uses never share a stream.
enum class Purpose : uint8_t {
  kPolicy = 0,
  kOpponent = 1,
  kGreedy = 2,
  kJudge = 3,
  kEvaluation = 4,
  kShuffle = 5,
  kInitialise = 6,
  kMinibatch = 7,
  kDirection = 8,
};

/// Names one sampled sequence; with a token position it names one random number (algorithms: "The
/// sampler, exactly").
struct SampleKey {
  uint64_t job_seed = 0;
  uint32_t stage = 0;           ///< index of the stage in the job, below 256
  uint64_t prompt_ordinal = 0;  ///< issue order over the whole stage, below 2^48
  uint32_t sample_index = 0;    ///< which of the n samples of the prompt
  Purpose purpose = Purpose::kPolicy;
};

/// Uniform in [0, 1), 53 random bits, for token `position` (0 = first response token).
double uniform(const SampleKey& key, uint32_t position);

/// A stream of numbers under one key, for shuffles and initialisation.
class RandomStream {
 public:
  explicit RandomStream(const SampleKey& key) : key_(key) {}
  double uniform();                ///< [0, 1)
  uint64_t below(uint64_t bound);  ///< uniform in {0, ..., bound - 1}; bound >= 1
  double normal();                 ///< standard normal (Box-Muller)
  /// A permutation of 0..n-1 (Fisher-Yates).
  std::vector<int64_t> permutation(int64_t n);

 private:
  SampleKey key_;
  uint32_t position_ = 0;
};

}  // namespace praetor
