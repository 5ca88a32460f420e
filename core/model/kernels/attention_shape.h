#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/model/kernels/table.h"
#include "core/model/ops.h"

/// What attention's forward and backward have in common.
namespace praetor::ops::kernels {

struct AttentionShape {
  int64_t heads, kv_heads, d;
  float scale;     // of the scores
  float softcap;   // 0: none
  int64_t window;  // most keys that a row sees
  AttentionShape(int64_t query_heads, int64_t kv, int64_t dim, const AttentionOptions& options)
      : heads(query_heads),
        kv_heads(kv),
        d(dim),
        scale(static_cast<float>(options.scale_of(dim))),
        softcap(static_cast<float>(options.softcap)),
        window(options.window > 0 ? options.window : std::numeric_limits<int64_t>::max()) {}
  int64_t group() const { return heads / kv_heads; }
  // The first key that a row at `position` sees.
  int64_t first(int64_t position) const { return std::max<int64_t>(0, position - (window - 1)); }
};

constexpr int64_t kLanes = 16;

// Replaces a row's (capped) scores, of keys begin .. end counted from a multiple of kPanel, by
// their exponentials and returns the sum. Lanes go by key, so that the bits do not depend on where
// a tile starts. The 16 floats from the last multiple of 16 before `begin`, and up to the next one
// behind `end`, are 0 where there is no key.
inline float exponentials(const Table& loops, float* scores, int64_t begin, int64_t end) {
  const int64_t from = begin / kLanes * kLanes;
  std::fill(scores + from, scores + begin, -std::numeric_limits<float>::infinity());
  return loops.softmax(scores + from, end - from);
}

}  // namespace praetor::ops::kernels
