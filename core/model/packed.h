#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace praetor {

/// Sequences end to end, never padded. A sequence may go on where another one ends, so that what
/// several have in common passes through the model once.
struct PackedTokens {
  at::Tensor tokens;             ///< [T] int64
  std::vector<int64_t> offsets;  ///< [N+1]; sequence i is tokens[offsets[i] .. offsets[i+1])
  /// [N] the sequence that stands before this one's tokens, itself an earlier one without a prefix;
  /// -1: none. Empty: no sequence has one.
  std::vector<int64_t> prefix = {};
  int64_t sequences() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t total() const { return offsets.empty() ? 0 : offsets.back(); }
};

PackedTokens pack(const std::vector<std::vector<int64_t>>& sequences);

/// Sequences packed so that what neighbours begin with passes through the model once.
struct SharedPack {
  PackedTokens packed;
  struct Place {
    int64_t shared;  ///< leading tokens that stand in a prefix
    int64_t prefix;  ///< row of the prefix's first token
    int64_t own;     ///< row of the first token after it
    int64_t length;  ///< of the sequence
  };
  std::vector<Place> places;  ///< [n]

  int64_t sequences() const { return static_cast<int64_t>(places.size()); }
  /// Row of a sequence's token.
  int64_t row(int64_t sequence, int64_t position) const {
    const Place& at = places[static_cast<size_t>(sequence)];
    return position < at.shared ? at.prefix + position : at.own + position - at.shared;
  }
  /// Rows of the last tokens, [n] int64. @throws InvalidArgument for an empty sequence
  at::Tensor last() const;
};

/// Runs of neighbours share what all of them begin with (two tokens and more); the runs are those
/// that save most.
/// @param switch_length  of the model (ModelConfig): sequences up to it share nothing with longer
/// ones, whose rotations are others
SharedPack pack_shared(const std::vector<std::span<const int64_t>>& sequences,
                       int64_t switch_length = 0);

/// Keys and values of one layer that a step of the engine reads and writes, in blocks of
/// `block_size` tokens. Tokens of a key block stand side by side, as scores of neighbouring tokens
/// are computed together.
struct KvLayer {
  at::Tensor keys;    ///< [blocks, kv_heads, head_dim, block_size]
  at::Tensor values;  ///< [blocks, block_size, kv_heads, head_dim]
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
