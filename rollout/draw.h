#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace praetor {

/// The logit of what is never drawn.
constexpr float kBarred = -std::numeric_limits<float>::infinity();

/// How a distribution is cut before a draw, in this order.
struct Truncation {
  int64_t top_k = 0;   ///< keep the k most likely; of equal ones the lower ids; 0, or >= V: off
  double top_p = 1.0;  ///< then the fewest most likely that hold this share, at least one; 1: off
  double min_p = 0.0;  ///< then those at least this likely relative to the most likely one; 0: off
};

/// Memory that draws use again and again; grows to the largest vocabulary seen. One a thread.
struct DrawScratch {
  struct Candidate {
    float z;
    int32_t id;
  };
  std::vector<float> z;               ///< a row of the caller's, for penalties
  std::vector<float> weights;         ///< [V] exp(z - max)
  std::vector<double> checkpoints;    ///< running sum before each block of 1,024 ids
  std::vector<Candidate> candidates;  ///< the head of the distribution, when it is truncated
};

struct Drawn {
  int64_t id = 0;
  float logprob = 0.0F;    ///< nats, in the truncated and renormalised distribution
  float kept_mass = 1.0F;  ///< probability of what truncation kept, in (0, 1]
};

/// Draws an id from softmax(z) cut by `truncation`, by inverting the cumulative distribution:
///
///   w_v = exp(z_v - max z) in float32; C_v = sum over kept ids j <= v of w_j, a running sum in
///   float64 in ascending id order; the first id with C_v > u * C_last.
///
/// Every step is a fixed sequence of IEEE operations, the exponential included, so the id depends
/// on z and u alone: not on the instruction set, the thread count or the library. Without
/// truncation (or with min_p alone) nothing is sorted: O(V).
///
/// @param z  [V] tempered and penalised logits; -inf is never drawn
/// @param u  in [0, 1)
/// @throws DataError when a logit is NaN or +inf, or all are -inf
Drawn draw(std::span<const float> z, const Truncation& truncation, double u, DrawScratch& scratch);

/// The id of the largest z; of equal ones the lowest. @throws DataError as draw
int64_t argmax(std::span<const float> z);

}  // namespace praetor
