#pragma once

#include <cmath>
#include <cstdint>

#include "core/base/exp_nonpositive.h"
#include "core/cuda/bfloat16.h"
#include "core/cuda/block.h"

/// What is done to the rows (tokens) of a forward pass between its products. The residual stream
/// and the results of products are float32; what goes into a product is bfloat16.
namespace praetor::cuda {

/// x[r] = table[tokens[r]] * scale, plus places[positions[r]] where positions are learned.
struct EmbedKernel {
  static constexpr int kThreads = 256;
  const Bfloat16* table;  ///< [vocabulary, width]
  const int32_t* tokens;  ///< [rows]
  float* x;               ///< [rows, width]
  int64_t rows, width;
  float scale = 1;
  const Bfloat16* places = nullptr;    ///< [positions, width], or nullptr
  const int32_t* positions = nullptr;  ///< [rows]

  Grid grid() const { return {rows, 1, 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const Bfloat16* from = table + tokens[at.x] * width;
    const Bfloat16* place = places ? places + positions[at.x] * width : nullptr;
    float* to = x + at.x * width;
    for (int64_t i = block.thread(); i < width; i += block.threads())
      to[i] = to_float(from[i]) * scale + (place ? to_float(place[i]) : 0.0F);
  }
};

/// Of row x[index ? index[r] : r]: y[r] = x / sqrt(mean(x^2) + eps) * weight, and with a bias the
/// same of x less its mean, plus the bias (arXiv:1910.07467, arXiv:1607.06450).
struct NormKernel {
  static constexpr int kThreads = 256;
  const float* x;        ///< [*, width]
  const float* weight;   ///< [width]
  const int32_t* index;  ///< [rows], or nullptr
  Bfloat16* y;           ///< [rows, width]
  int64_t rows, width;
  float eps;
  const float* bias = nullptr;  ///< [width], or nullptr

  Grid grid() const { return {rows, 1, 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const float* from = x + (index ? index[at.x] : at.x) * width;
    const auto count = static_cast<float>(width);
    float mean = 0;
    if (bias) {
      float total = 0;
      for (int64_t i = block.thread(); i < width; i += block.threads()) total += from[i];
      mean = block.sum(total) / count;
    }
    float squares = 0;
    for (int64_t i = block.thread(); i < width; i += block.threads()) {
      const float apart = from[i] - mean;
      squares = fmaf(apart, apart, squares);
    }
    const float scale = 1.0F / sqrtf(block.sum(squares) / count + eps);
    Bfloat16* to = y + at.x * width;
    for (int64_t i = block.thread(); i < width; i += block.threads())
      to[i] = to_bfloat16((from[i] - mean) * scale * weight[i] + (bias ? bias[i] : 0.0F));
  }
};

/// x[r] += y[r] / sqrt(mean(y[r]^2) + eps) * weight
struct AddNormKernel {
  static constexpr int kThreads = 256;
  const float* y;       ///< [rows, width]
  const float* weight;  ///< [width]
  float* x;             ///< [rows, width]
  int64_t rows, width;
  float eps;

  Grid grid() const { return {rows, 1, 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const float* from = y + at.x * width;
    float squares = 0;
    for (int64_t i = block.thread(); i < width; i += block.threads())
      squares = fmaf(from[i], from[i], squares);
    const float scale = 1.0F / sqrtf(block.sum(squares) / static_cast<float>(width) + eps);
    float* to = x + at.x * width;
    for (int64_t i = block.thread(); i < width; i += block.threads())
      to[i] += from[i] * scale * weight[i];
  }
};

/// x[r] += bias
struct AddBiasKernel {
  static constexpr int kThreads = 256;
  const float* bias;  ///< [width]
  float* x;           ///< [rows, width]
  int64_t rows, width;

  Grid grid() const { return {rows, 1, 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    float* to = x + at.x * width;
    for (int64_t i = block.thread(); i < width; i += block.threads()) to[i] += bias[i];
  }
};

/// x becomes cap tanh(x / cap) of each of its numbers.
struct SoftcapKernel {
  static constexpr int kThreads = 256;
  static constexpr int64_t kEach = 4;  ///< numbers of a thread
  float* x;                            ///< [count]
  int64_t count;
  float cap;

  Grid grid() const { return {blocks_of(count, kEach * kThreads), 1, 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const int64_t end = smaller(count, (at.x + 1) * kEach * kThreads);
    for (int64_t i = at.x * kEach * kThreads + block.thread(); i < end; i += block.threads())
      x[i] = cap * tanhf(x[i] / cap);
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

/// A row of queries, keys and values side by side gets its biases; heads of queries and keys are
/// normed, where they have weights for it (x / sqrt(mean(x^2) + eps) * weight), and rotated in
/// half-split form; keys and values go to the row's place of the cache, queries stay.
struct RotateStoreKernel {
  static constexpr int kThreads = 256;
  static constexpr int64_t kLanes = 8;  ///< partial sums of a head's squares
  float* qkv;                           ///< [rows, (heads + 2 kv_heads) head_dim]
  const float* bias;                    ///< of a row of qkv, or nullptr
  const float *cos, *sin;               ///< [*, half]
  const int32_t* turns;                 ///< [rows] each row's of cos and sin
  const int32_t* positions;             ///< [rows]
  const int32_t* blocks;                ///< [rows] of the cache, each row's
  Bfloat16 *keys, *values;
  CacheShape cache;
  int64_t rows, heads, half;                         ///< half: pairs that are rotated; 0: none
  const float *q_norm = nullptr, *k_norm = nullptr;  ///< [head_dim] both, or nullptr
  float eps = 0;

  PRAETOR_HD int64_t normed() const { return q_norm ? heads + cache.kv_heads : 0; }

  Grid grid() const { return {rows, 1, 1}; }
  int64_t memory() const { return normed() * (kLanes + 1) * static_cast<int64_t>(sizeof(float)); }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const int d = static_cast<int>(cache.head_dim), pairs = d / 2;
    float* row = qkv + at.x * (heads + 2 * cache.kv_heads) * d;
    const int64_t place = positions[at.x] % cache.block_size;
    const float* c = cos + turns[at.x] * half;
    const float* s = sin + turns[at.x] * half;
    const float* scale = q_norm ? scales(block, row) : nullptr;
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
      if (scale && head < normed()) {
        const float* weight = head < heads ? q_norm : k_norm;
        a = a * scale[head] * weight[first];
        b = b * scale[head] * weight[second];
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

 private:
  /// 1 / sqrt(mean + eps) of the heads of queries and keys.
  template <typename Block>
  PRAETOR_HD const float* scales(Block& block, const float* row) const {
    const auto d = cache.head_dim;
    auto* part = reinterpret_cast<float*>(block.memory());  // [normed, kLanes]
    float* scale = part + normed() * kLanes;                // [normed]
    for (int64_t i = block.thread(); i < normed() * kLanes; i += block.threads()) {
      const int64_t at = i / kLanes * d;
      float squares = 0;
      for (int64_t j = i % kLanes; j < d; j += kLanes) {
        const float x = row[at + j] + (bias ? bias[at + j] : 0.0F);
        squares = fmaf(x, x, squares);
      }
      part[i] = squares;
    }
    block.sync();
    for (int64_t head = block.thread(); head < normed(); head += block.threads()) {
      float squares = 0;
      for (int64_t lane = 0; lane < kLanes; ++lane) squares += part[head * kLanes + lane];
      scale[head] = 1.0F / sqrtf(squares / static_cast<float>(d) + eps);
    }
    block.sync();
    return scale;
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

/// y[r] = activation(gate) * up, where a row of x is gate and up side by side; or activation(x),
/// where there is no gate.
struct GatedKernel {
  static constexpr int kThreads = 256;
  const float* x;  ///< [rows, 2 width], without a gate [rows, width]
  Bfloat16* y;     ///< [rows, width]
  int64_t rows, width;
  bool is_gelu;  ///< else silu
  bool gated = true;
  const float* bias = nullptr;  ///< of a row of x, or nullptr

  Grid grid() const { return {rows, blocks_of(width, 4 * kThreads), 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const float* from = x + at.x * (gated ? 2 : 1) * width;
    const int64_t end = smaller(width, (at.y + 1) * 4 * kThreads);
    const auto value = [&](int64_t i) { return from[i] + (bias ? bias[i] : 0.0F); };
    for (int64_t i = at.y * 4 * kThreads + block.thread(); i < end; i += block.threads()) {
      const float activated = is_gelu ? gelu(value(i)) : silu(value(i));
      y[at.x * width + i] = to_bfloat16(gated ? activated * value(width + i) : activated);
    }
  }
};

}  // namespace praetor::cuda
