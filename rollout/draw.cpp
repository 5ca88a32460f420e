#include "rollout/draw.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "core/base/exp_nonpositive.h"

// The clones round alike: contraction into fused operations is off for the whole tree. The
// resolvers of clones run before a thread sanitizer is ready, so they are left out there.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define PRAETOR_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define PRAETOR_VECTOR_CLONES
#endif

namespace praetor {
namespace {

constexpr size_t kBlock = 1024;

PRAETOR_VECTOR_CLONES
void exp_all(const float* z, float max, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) out[i] = exp_nonpositive(z[i] - max);
}

// The largest value, or NaN when any is: a comparison alone would pass NaN over. In lanes, which
// change neither answer, because a compiler may not reorder a float maximum by itself.
PRAETOR_VECTOR_CLONES
float largest(const float* z, size_t n) {
  constexpr size_t kLanes = 16;
  float best[kLanes];
  uint32_t nan[kLanes] = {};
  std::fill(best, best + kLanes, -std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      best[j] = z[i + j] > best[j] ? z[i + j] : best[j];
      nan[j] |= z[i + j] != z[i + j] ? 1U : 0U;
    }
  }
  for (; i < n; ++i) {
    best[0] = z[i] > best[0] ? z[i] : best[0];
    nan[0] |= z[i] != z[i] ? 1U : 0U;
  }
  for (size_t j = 1; j < kLanes; ++j) {
    best[0] = std::max(best[0], best[j]);
    nan[0] |= nan[j];
  }
  return nan[0] != 0 ? std::numeric_limits<float>::quiet_NaN() : best[0];
}

float checked_max(std::span<const float> z) {
  const float max = largest(z.data(), z.size());
  if (!std::isfinite(max)) {
    throw DataError("the logits are unusable: the largest of ",
                    z.size(),
                    " is ",
                    max,
                    " (finite ones are needed: look at the weights)");
  }
  return max;
}

// Running sum over all ids, kept at the start of each block.
double sum_with_checkpoints(DrawScratch& scratch, size_t n) {
  scratch.checkpoints.clear();
  double total = 0.0;
  for (size_t start = 0; start < n; start += kBlock) {
    scratch.checkpoints.push_back(total);
    const size_t end = std::min(n, start + kBlock);
    for (size_t i = start; i < end; ++i) total += scratch.weights[i];
  }
  return total;
}

// First id whose running sum exceeds `target`, found in the one block that holds it.
int64_t invert(const DrawScratch& scratch, size_t n, double target) {
  const auto above =
      std::upper_bound(scratch.checkpoints.begin(), scratch.checkpoints.end(), target);
  const auto block = static_cast<size_t>(above - scratch.checkpoints.begin()) - 1;
  double sum = scratch.checkpoints[block];
  size_t last = 0;
  for (size_t i = block * kBlock; i < n; ++i) {
    if (scratch.weights[i] == 0.0F) continue;
    sum += scratch.weights[i];
    last = i;
    if (sum > target) break;
  }
  return static_cast<int64_t>(last);
}

bool more_likely(const DrawScratch::Candidate& a, const DrawScratch::Candidate& b) {
  return a.z != b.z ? a.z > b.z : a.id < b.id;
}

bool lower_id(const DrawScratch::Candidate& a, const DrawScratch::Candidate& b) {
  return a.id < b.id;
}

// Fills `candidates` with a head of the distribution (every id at least as likely as any in it)
// that has `count` ids, or `mass` when count is 0: the same ids a full sort would put first.
void collect_head(
    std::span<const float> z, float max, size_t count, double mass, DrawScratch& scratch) {
  for (float depth = 8.0F;; depth *= 3.0F) {
    const bool all = depth > 200.0F;
    const float floor = all ? -std::numeric_limits<float>::infinity() : max - depth;
    scratch.candidates.clear();
    double sum = 0.0;
    for (size_t i = 0; i < z.size(); ++i) {
      if (z[i] >= floor) {
        scratch.candidates.push_back({z[i], static_cast<int32_t>(i)});
        sum += scratch.weights[i];
      }
    }
    // The margin outweighs the rounding of two sums in different order.
    if (all || (count > 0 ? scratch.candidates.size() >= count : sum >= mass * (1.0 + 1e-9)))
      return;
  }
}

double mass_of(const DrawScratch& scratch) {
  double sum = 0.0;
  for (const auto& c : scratch.candidates) sum += scratch.weights[static_cast<size_t>(c.id)];
  return sum;
}

// Leaves the kept ids in `candidates`, in ascending order, and returns their mass.
double truncate(std::span<const float> z,
                float max,
                double total,
                const Truncation& cut,
                DrawScratch& scratch) {
  auto& head = scratch.candidates;
  double share_of = total;
  if (cut.top_k > 0 && static_cast<size_t>(cut.top_k) < z.size()) {
    const auto k = static_cast<size_t>(cut.top_k);
    collect_head(z, max, k, 0.0, scratch);
    const auto middle = head.begin() + static_cast<std::ptrdiff_t>(k);
    if (middle != head.end()) std::nth_element(head.begin(), middle, head.end(), more_likely);
    head.resize(k);
    std::sort(head.begin(), head.end(), lower_id);
    share_of = mass_of(scratch);
  } else {
    collect_head(z, max, 0, cut.top_p * total, scratch);
  }
  if (cut.top_p < 1.0) {
    std::sort(head.begin(), head.end(), more_likely);
    double sum = 0.0;
    size_t kept = 0;
    while (kept < head.size() && (kept == 0 || sum < cut.top_p * share_of)) {
      sum += scratch.weights[static_cast<size_t>(head[kept++].id)];
    }
    head.resize(kept);
    std::sort(head.begin(), head.end(), lower_id);
  }
  std::erase_if(head, [&](const DrawScratch::Candidate& c) {
    return static_cast<double>(scratch.weights[static_cast<size_t>(c.id)]) < cut.min_p;
  });
  return mass_of(scratch);
}

}  // namespace

int64_t argmax(std::span<const float> z) {
  const float max = checked_max(z);
  return std::find(z.begin(), z.end(), max) - z.begin();
}

Drawn draw(std::span<const float> z, const Truncation& truncation, double u, DrawScratch& scratch) {
  const size_t n = z.size();
  const float max = checked_max(z);
  scratch.weights.resize(n);
  exp_all(z.data(), max, n, scratch.weights.data());
  const double total = sum_with_checkpoints(scratch, n);
  const bool top_k = truncation.top_k > 0 && static_cast<size_t>(truncation.top_k) < n;
  double kept = total;
  Drawn drawn;
  if (top_k || truncation.top_p < 1.0) {
    kept = truncate(z, max, total, truncation, scratch);
    const double target = u * kept;
    double sum = 0.0;
    for (const auto& c : scratch.candidates) {
      const float weight = scratch.weights[static_cast<size_t>(c.id)];
      if (weight == 0.0F) continue;
      sum += weight;
      drawn.id = c.id;
      if (sum > target) break;
    }
  } else {
    if (truncation.min_p > 0.0) {
      for (float& weight : scratch.weights) {
        if (static_cast<double>(weight) < truncation.min_p) weight = 0.0F;
      }
      kept = sum_with_checkpoints(scratch, n);
    }
    drawn.id = invert(scratch, n, u * kept);
  }
  const double relative = static_cast<double>(z[static_cast<size_t>(drawn.id)]) - max;
  drawn.logprob = static_cast<float>(relative - std::log(kept));
  drawn.kept_mass = static_cast<float>(kept / total);
  return drawn;
}

}  // namespace praetor
