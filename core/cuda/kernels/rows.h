#pragma once

#include <cmath>
#include <cstdint>

#include "core/base/exp_nonpositive.h"
#include "core/cuda/bfloat16.h"
#include "core/cuda/block.h"

/// What is done to the rows (tokens) of a forward pass between its products. The residual stream
/// and the results of products are float32; what goes into a product is bfloat16.
namespace praetor::cuda {

/// x[r] = table[tokens[r]]
struct EmbedKernel {
  static constexpr int kThreads = 256;
  const Bfloat16* table;  ///< [vocabulary, width]
  const int32_t* tokens;  ///< [rows]
  float* x;               ///< [rows, width]
  int64_t rows, width;

  Grid grid() const { return {rows, 1, 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const Bfloat16* from = table + tokens[at.x] * width;
    float* to = x + at.x * width;
    for (int64_t i = block.thread(); i < width; i += block.threads()) to[i] = to_float(from[i]);
  }
};

/// y[r] = x / sqrt(mean(x^2) + eps) * weight of row x[index ? index[r] : r].
struct RmsNormKernel {
  static constexpr int kThreads = 256;
  const float* x;        ///< [*, width]
  const float* weight;   ///< [width]
  const int32_t* index;  ///< [rows], or nullptr
  Bfloat16* y;           ///< [rows, width]
  int64_t rows, width;
  float eps;

  Grid grid() const { return {rows, 1, 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const float* from = x + (index ? index[at.x] : at.x) * width;
    float squares = 0;
    for (int64_t i = block.thread(); i < width; i += block.threads())
      squares = fmaf(from[i], from[i], squares);
    const float scale = 1.0F / sqrtf(block.sum(squares) / static_cast<float>(width) + eps);
    Bfloat16* to = y + at.x * width;
    for (int64_t i = block.thread(); i < width; i += block.threads())
      to[i] = to_bfloat16(from[i] * scale * weight[i]);
  }
};

/// Where a paged cache has keys or values: blocks of `block_size` tokens, [blocks, kv_heads,
/// block_size, head_dim].
struct CacheShape {
  int64_t kv_heads, block_size, head_dim;
  /// Of a token's place in a block.
  PRAETOR_HD constexpr int64_t offset(int64_t block, int64_t place, int64_t head) const {
    return ((block * kv_heads + head) * block_size + place) * head_dim;
  }
};

/// A row of queries, keys and values side by side gets its biases; queries and keys are rotated in
/// half-split form; keys and values go to the row's place of the cache, queries stay.
struct RotateStoreKernel {
  static constexpr int kThreads = 256;
  float* qkv;                ///< [rows, (heads + 2 kv_heads) head_dim]
  const float* bias;         ///< of a row of qkv, or nullptr
  const float *cos, *sin;    ///< [positions, half]
  const int32_t* positions;  ///< [rows]
  const int32_t* blocks;     ///< [rows] of the cache, each row's
  Bfloat16 *keys, *values;
  CacheShape cache;
  int64_t rows, heads, half;

  Grid grid() const { return {rows, 1, 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const int d = static_cast<int>(cache.head_dim), pairs = d / 2;
    float* row = qkv + at.x * (heads + 2 * cache.kv_heads) * d;
    const int64_t place = positions[at.x] % cache.block_size;
    const float* c = cos + positions[at.x] * half;
    const float* s = sin + positions[at.x] * half;
    const int work = static_cast<int>(heads + 2 * cache.kv_heads) * pairs;
    for (int i = block.thread(); i < work; i += block.threads()) {
      const int head = i / pairs, pair = i % pairs;
      // A pair that is rotated lies `half` apart, the dimensions behind those side by side.
      const bool rotated = pair < half;
      const int first = rotated ? pair : 2 * pair;
      const int64_t second = rotated ? pair + half : first + 1;
      float a = row[head * d + first], b = row[head * d + second];
      if (bias) {
        a += bias[head * d + first];
        b += bias[head * d + second];
      }
      if (rotated && head < heads + cache.kv_heads) {
        const float turned = a * c[pair] - b * s[pair];
        b = b * c[pair] + a * s[pair];
        a = turned;
      }
      if (head < heads) {
        row[head * d + first] = a;
        row[head * d + second] = b;
        continue;
      }
      const bool key = head < heads + cache.kv_heads;
      const int64_t kv_head = head - heads - (key ? 0 : cache.kv_heads);
      Bfloat16* to = (key ? keys : values) + cache.offset(blocks[at.x], place, kv_head);
      to[first] = to_bfloat16(a);
      to[second] = to_bfloat16(b);
    }
  }
};

/// silu(x), the same bits here and there, without overflow.
PRAETOR_HD inline float silu(float x) {
  const float e = exp_nonpositive(x < 0 ? x : -x);
  return x * ((x < 0 ? e : 1.0F) / (1.0F + e));
}

/// gelu(x) by its tanh form (arXiv:1606.08415).
PRAETOR_HD inline float gelu(float x) {
  const float inner = 0.7978845608F * fmaf(0.044715F, x * x * x, x);
  const float e = exp_nonpositive(-2.0F * (inner < 0 ? -inner : inner));
  const float size = (1.0F - e) / (1.0F + e);
  return 0.5F * x * (1.0F + (inner < 0 ? -size : size));
}

/// y[r] = activation(gate) * up, where a row of x is gate and up side by side.
struct GatedKernel {
  static constexpr int kThreads = 256;
  const float* x;  ///< [rows, 2 width]
  Bfloat16* y;     ///< [rows, width]
  int64_t rows, width;
  bool is_gelu;  ///< else silu

  Grid grid() const { return {rows, blocks_of(width, 4 * kThreads), 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const float* gate = x + at.x * 2 * width;
    const int64_t end = smaller(width, (at.y + 1) * 4 * kThreads);
    for (int64_t i = at.y * 4 * kThreads + block.thread(); i < end; i += block.threads()) {
      const float activated = is_gelu ? gelu(gate[i]) : silu(gate[i]);
      y[at.x * width + i] = to_bfloat16(activated * gate[width + i]);
    }
  }
};

}  // namespace praetor::cuda
