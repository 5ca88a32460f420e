#pragma once

#include <cmath>
#include <cstdint>

#include "core/base/exp_nonpositive.h"
#include "core/cuda/bfloat16.h"
#include "core/cuda/block.h"
#include "core/cuda/kernels/rows.h"

/// Causal attention over a paged cache. One kernel for decoding and for prompts: a block takes a
/// tile of consecutive rows of one sequence and the query heads that share a key head, goes over
/// the keys in tiles that it holds in shared memory, and keeps a running maximum and sum (online
/// softmax, arXiv:1805.02867, as in FlashAttention, arXiv:2205.14135). The keys may be split among
/// several blocks, whose parts a second kernel joins (as Flash-Decoding), so that a few long
/// sequences fill a GPU.
namespace praetor::cuda {

/// Consecutive rows of one sequence.
struct AttendTile {
  int32_t first;     ///< row
  int32_t count;     ///< of rows, >= 1
  int32_t sequence;  ///< row of the block tables
};

/// Exponential of a difference to a maximum, which is minus infinity where nothing was seen yet.
PRAETOR_HD inline float weight_of(float score, float maximum) {
  return maximum == -INFINITY ? 0.0F : exp_nonpositive(score - maximum);
}

struct AttendKernel {
  static constexpr int kThreads = 128;
  static constexpr int64_t kQueries = 16;  ///< of a block, unless more heads share a key head
  static constexpr int kAtOnce = 2;        ///< queries that a thread takes through a tile together

  const float* q;    ///< [rows, q_stride], the heads first
  int64_t q_stride;  ///< >= heads * head_dim
  const Bfloat16 *keys, *values;
  CacheShape cache;
  const int32_t* tables;  ///< [sequences, table_stride] blocks of a sequence, in order
  int64_t table_stride;
  const int32_t* positions;  ///< [rows]; those of a tile ascend by one
  const AttendTile* tiles;
  int64_t tile_count, heads, splits;
  float scale;        ///< of the scores
  float* part;        ///< [splits, rows, heads, head_dim] weighted sums, not divided
  float* part_state;  ///< [splits, rows, heads, 2] maximum and sum
  int64_t rows;
  int64_t window = 0;  ///< keys that a row sees, its own among them; 0: all up to its own
  float softcap = 0;   ///< scores x become c tanh(x / c) of this c; 0: they do not

  /// Rows of a tile so that its queries are at most kQueries, where that can be.
  static int64_t tile_rows(int64_t heads, int64_t kv_heads) {
    return larger<int64_t>(1, kQueries / (heads / kv_heads));
  }
  /// Keys that are held at once: fewer where heads are wide.
  PRAETOR_HD int64_t tile_keys() const { return cache.head_dim <= 128 ? 64 : 32; }
  PRAETOR_HD int64_t most_queries() const {
    return larger<int64_t>(kQueries, heads / cache.kv_heads);
  }

  Grid grid() const { return {tile_count, cache.kv_heads, splits}; }
  int64_t memory() const {
    const int64_t d = cache.head_dim, n = most_queries(), k = tile_keys();
    return 8 * k + 4 * (2 * n * d + n * k + 3 * n) + 2 * k * (2 * d + 2);
  }

  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    // Divisions of 32 bits: those of 64 are dear on a GPU.
    const int d = static_cast<int>(cache.head_dim),
              group = static_cast<int>(heads / cache.kv_heads);
    const int most_keys = static_cast<int>(tile_keys()), most = static_cast<int>(most_queries());
    const int thread = block.thread(), threads = block.threads();
    const AttendTile tile = tiles[at.x];
    const int n = tile.count * group;
    const int total = positions[tile.first + tile.count - 1] + 1;
    // Each split has whole tiles of keys, of which the first has the first key that is seen.
    const int seen =
        window > 0 ? static_cast<int>(larger<int64_t>(0, positions[tile.first] + 1 - window)) : 0;
    const int first_key = seen / most_keys * most_keys;
    const auto share =
        static_cast<int>(blocks_of(blocks_of(total - first_key, most_keys), splits)) * most_keys;
    const int begin = smaller(total, first_key + static_cast<int>(at.z) * share);
    const int end = smaller(total, begin + share);

    auto* from = reinterpret_cast<int64_t*>(block.memory());   // [most_keys] where a key lies
    auto* query = reinterpret_cast<float*>(from + most_keys);  // [n, d]
    float* sum = query + most * d;                             // [n, d]
    float* weight = sum + most * d;                            // [n, most_keys]
    float* maximum = weight + most * most_keys;                // [n]
    float* total_weight = maximum + most;                      // [n]
    float* shrink = total_weight + most;                       // [n]
    auto* key = reinterpret_cast<uint32_t*>(shrink + most);    // [most_keys, d / 2 + 1]
    // One word more a row: threads that read neighbouring keys read from different banks.
    uint32_t* value = key + most_keys * (d / 2 + 1);  // [most_keys, d / 2]

    for (int i = thread; i < n * d; i += threads) {
      const int64_t row = tile.first + i / d / group, head = at.y * group + i / d % group;
      query[i] = q[row * q_stride + head * d + i % d] * scale;
      sum[i] = 0;
    }
    for (int i = thread; i < n; i += threads) {
      maximum[i] = -INFINITY;
      total_weight[i] = 0;
    }
    for (int start = begin; start < end; start += most_keys) {
      const int count = smaller(most_keys, end - start);
      for (int j = thread; j < count; j += threads) {
        const int position = start + j, size = static_cast<int>(cache.block_size);
        const int id = tables[tile.sequence * table_stride + position / size];
        from[j] = cache.offset(static_cast<int64_t>(id), position % size, at.y);
      }
      block.sync();
      load(block, count, from, key, value);
      block.sync();
      score(block, tile, n, start, count, query, key, weight);
      block.sync();
      for (int i = thread; i < n; i += threads) {
        float best = maximum[i];
        for (int j = 0; j < count; ++j) best = larger(best, weight[i * most_keys + j]);
        shrink[i] = weight_of(maximum[i], best);
        maximum[i] = best;
      }
      block.sync();
      for (int i = thread; i < n * count; i += threads) {
        float& w = weight[i / count * most_keys + i % count];
        w = weight_of(w, maximum[i / count]);
      }
      block.sync();
      weigh(block, n, count, weight, value, shrink, sum);
      for (int i = thread; i < n; i += threads) {
        float added = 0;
        for (int j = 0; j < count; ++j) added += weight[i * most_keys + j];
        total_weight[i] = total_weight[i] * shrink[i] + added;
      }
      block.sync();
    }
    block.sync();
    // [splits, rows, heads]
    const int64_t first = (at.z * rows + tile.first) * heads + at.y * group;
    const auto place = [&](int i) { return first + i / group * heads + i % group; };
    for (int i = thread; i < n * d; i += threads) part[place(i / d) * d + i % d] = sum[i];
    for (int i = thread; i < n; i += threads) {
      part_state[place(i) * 2] = maximum[i];
      part_state[place(i) * 2 + 1] = total_weight[i];
    }
  }

 private:
  struct alignas(16) Words {
    uint32_t at[4];
  };

  /// Keys and values of a tile, eight numbers a thread at a time.
  template <typename Block>
  PRAETOR_HD void load(
      Block& block, int count, const int64_t* from, uint32_t* key, uint32_t* value) const {
    const int words = static_cast<int>(cache.head_dim) / 2, quads = words / 4;
    for (int i = block.thread(); i < count * quads; i += block.threads()) {
      const int j = i / quads, word = i % quads * 4;
      const auto* k = reinterpret_cast<const Words*>(keys + from[j]);
      const auto* v = reinterpret_cast<const Words*>(values + from[j]);
      const Words of_key = k[word / 4], of_value = v[word / 4];
      for (int w = 0; w < 4; ++w) {
        key[j * (words + 1) + word + w] = of_key.at[w];
        value[j * words + word + w] = of_value.at[w];
      }
    }
  }

  /// weight[i][j] = query i times key j, minus infinity for keys that the query does not see.
  template <typename Block>
  PRAETOR_HD void score(Block& block,
                        const AttendTile& tile,
                        int n,
                        int start,
                        int count,
                        const float* query,
                        const uint32_t* key,
                        float* weight) const {
    const int d = static_cast<int>(cache.head_dim), words = d / 2;
    const int group = static_cast<int>(heads / cache.kv_heads);
    const int most_keys = static_cast<int>(tile_keys());
    const int work = (n + kAtOnce - 1) / kAtOnce * count;
    for (int i = block.thread(); i < work; i += block.threads()) {
      const int j = i % count, first = i / count * kAtOnce;
      const float *a = query + first * d, *b = query + smaller(first + 1, n - 1) * d;
      const uint32_t* row = key + j * (words + 1);
      float of_a = 0, of_b = 0;
      for (int word = 0; word < words; ++word) {
        const float low = low_of(row[word]), high = high_of(row[word]);
        of_a = fmaf(a[2 * word + 1], high, fmaf(a[2 * word], low, of_a));
        of_b = fmaf(b[2 * word + 1], high, fmaf(b[2 * word], low, of_b));
      }
      for (int which = first; which < smaller(first + kAtOnce, n); ++which) {
        const int position = positions[tile.first + which / group];
        const bool seen = start + j <= position && (window == 0 || start + j + window > position);
        const float x = which == first ? of_a : of_b;
        weight[which * most_keys + j] = !seen         ? -INFINITY
                                        : softcap > 0 ? softcap * tanhf(x / softcap)
                                                      : x;
      }
    }
  }

  /// sum[i] = sum[i] * shrink[i] + the tile's values by their weights.
  template <typename Block>
  PRAETOR_HD void weigh(Block& block,
                        int n,
                        int count,
                        const float* weight,
                        const uint32_t* value,
                        const float* shrink,
                        float* sum) const {
    const int d = static_cast<int>(cache.head_dim), words = d / 2;
    const int most_keys = static_cast<int>(tile_keys());
    const int work = (n + kAtOnce - 1) / kAtOnce * words;
    for (int i = block.thread(); i < work; i += block.threads()) {
      const int word = i % words, first = i / words * kAtOnce;
      const int second = smaller(first + 1, n - 1);
      const float *a = weight + first * most_keys, *b = weight + second * most_keys;
      float low_a = 0, high_a = 0, low_b = 0, high_b = 0;
      for (int j = 0; j < count; ++j) {
        const uint32_t pair = value[j * words + word];
        low_a = fmaf(a[j], low_of(pair), low_a);
        high_a = fmaf(a[j], high_of(pair), high_a);
        low_b = fmaf(b[j], low_of(pair), low_b);
        high_b = fmaf(b[j], high_of(pair), high_b);
      }
      float* to = sum + first * d + 2 * word;
      to[0] = fmaf(to[0], shrink[first], low_a);
      to[1] = fmaf(to[1], shrink[first], high_a);
      if (second == first) continue;
      to += d;
      to[0] = fmaf(to[0], shrink[second], low_b);
      to[1] = fmaf(to[1], shrink[second], high_b);
    }
  }
};

/// Joins the parts of a row's heads: sums under one maximum, divided by their weight.
struct JoinKernel {
  static constexpr int kThreads = 128;
  const float *part, *part_state;  ///< as AttendKernel leaves them
  Bfloat16* out;                   ///< [rows, heads, head_dim]
  int64_t rows, heads, head_dim, splits;

  Grid grid() const { return {rows, heads, 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const int64_t query = at.x * heads + at.y, queries = rows * heads;
    float best = -INFINITY, weight = 0;
    for (int64_t s = 0; s < splits; ++s) best = larger(best, part_state[(s * queries + query) * 2]);
    for (int64_t s = 0; s < splits; ++s) {
      const float* state = part_state + (s * queries + query) * 2;
      weight += state[1] * weight_of(state[0], best);
    }
    for (int64_t i = block.thread(); i < head_dim; i += block.threads()) {
      float sum = 0;
      for (int64_t s = 0; s < splits; ++s) {
        const int64_t place = s * queries + query;
        sum = fmaf(part[place * head_dim + i], weight_of(part_state[place * 2], best), sum);
      }
      out[query * head_dim + i] = to_bfloat16(sum / weight);
    }
  }
};

}  // namespace praetor::cuda
