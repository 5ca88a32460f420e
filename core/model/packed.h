#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace praetor {

/// Sequences end to end, never padded.
struct PackedTokens {
  at::Tensor tokens;             ///< [T] int64
  std::vector<int64_t> offsets;  ///< [N+1]; sequence i is tokens[offsets[i] .. offsets[i+1])
  int64_t sequences() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t total() const { return offsets.empty() ? 0 : offsets.back(); }
};

PackedTokens pack(const std::vector<std::vector<int64_t>>& sequences);

/// Keys and values of one layer that a step of the engine reads and writes: blocks of `block_size`
/// tokens, each [block_size, kv_heads, head_dim], float32 on CPU.
struct KvLayer {
  at::Tensor keys;    ///< [blocks, block_size, kv_heads, head_dim]
  at::Tensor values;  ///< the same
};

/// The paged cache of all layers. Owned by the engine, which hands out blocks; the model only reads
/// and writes slots.
struct KvCache {
  std::vector<KvLayer> layers;
  int64_t block_size = 16;
};

/// The rows (tokens) of one engine step: any mix of prefill and decode rows of any sequences.
/// Keys and values of all rows are written to their slots before attention reads, so rows of one
/// sequence see the earlier rows of the same step.
struct CachedRows {
  std::vector<int64_t> tokens;  ///< [M]
  std::vector<int32_t>
      positions;  ///< [M] position in its sequence; the row attends to positions 0..position
  std::vector<int32_t> sequence;  ///< [M] index into `tables`
  std::vector<const std::vector<int32_t>*>
      tables;                         ///< block ids of each sequence, in order; borrowed
  std::vector<int64_t> lengths = {};  ///< tokens of each sequence, those of later steps among them;
                                      ///< empty: up to its last row of this step
};

}  // namespace praetor
