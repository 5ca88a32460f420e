#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/data/example.h"
#include "core/data/experience.h"
#include "core/model/packed.h"

namespace praetor {

/// Token sequences with the tokens that are predicted in them: responses of an experience, targets
/// of examples. The form in which forward passes are cut and packed. R counts predicted tokens, in
/// the order of the sequences.
struct SequenceBatch {
  std::vector<int64_t> tokens;      ///< [T] end to end
  std::vector<int64_t> offsets{0};  ///< [N+1] into tokens
  std::vector<int64_t> positions;  ///< [R] of each predicted token in its sequence, ascending, >= 1
  std::vector<int64_t> target_offsets{0};  ///< [N+1] into positions
  /// [N] sequences of one family begin with the same `shared` tokens, which pass through a forward
  /// once when they stand side by side: the samples of a prompt, the two of a pair.
  std::vector<int64_t> family;
  std::vector<int64_t> shared;  ///< [N] 0: nothing

  int64_t sequences() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t length(int64_t i) const { return offsets[size_t(i) + 1] - offsets[size_t(i)]; }
  int64_t targets(int64_t i) const {
    return target_offsets[size_t(i) + 1] - target_offsets[size_t(i)];
  }

  /// @throws ShapeError when the parts of `experience` do not fit each other
  static SequenceBatch from(const Experience& experience);
  /// Every `unit` neighbours (2 of a pair) are a family.
  /// @throws DataError naming the row of an example without tokens, or with its first token a
  /// target
  static SequenceBatch from(const std::vector<Example>& examples, int64_t unit = 1);
};

/// Some sequences of a batch, packed for one forward; what neighbours begin with stands there once.
struct PackedSlice {
  PackedTokens packed;
  at::Tensor rows;  ///< [r] rows of the hidden states that predict, one before each predicted token
  at::Tensor targets;      ///< [r] the predicted tokens
  at::Tensor sequence_of;  ///< [r] 0 .. n-1 within the slice
  at::Tensor index;        ///< [r] into [R] of the whole batch
  at::Tensor last;         ///< [n] row of each sequence's last token
  at::Tensor prompt;       ///< [n] row before its first predicted token; without one, `last`
  int64_t sequences() const { return last.numel(); }  ///< n
};

/// @param switch_length  see pack_shared
PackedSlice pack_slice(const SequenceBatch& batch,
                       const std::vector<int64_t>& sequences,
                       int64_t switch_length = 0);

/// Sequences that stay together in one forward, such as the two of a pair.
using Units = std::vector<std::vector<int64_t>>;

/// Every `size` neighbours of `order`. @throws InvalidArgument when it is not a multiple of `size`
Units units_of(const std::vector<int64_t>& order, int64_t size = 1);

/// The units with those of one family (of their first sequences) side by side: families in the
/// order in which they are met, and within one the order given.
Units by_family(const SequenceBatch& batch, const Units& units);

/// Cuts the units into runs of at most `token_budget` tokens each, shared ones counted once, in
/// order, and lists the sequences of each run. A unit longer than the budget goes alone.
/// @throws InvalidArgument when the budget is below 1
std::vector<std::vector<int64_t>> plan_micro_batches(const SequenceBatch& batch,
                                                     const Units& units,
                                                     int64_t token_budget);

/// Gives each unit to one of `world_size` ranks, so that each has about as many tokens to compute:
/// a family's units go to one rank together, unless ranks are fuller by that than if families may
/// be parted. No rank has more than the mean of all lengths and one unit. A rank's units keep their
/// order; it may get none.
std::vector<Units> plan_ranks(const SequenceBatch& batch, const Units& units, int32_t world_size);

/// Cuts `order` into at most `count` runs of sizes that differ by at most one; none is empty.
std::vector<std::vector<int64_t>> plan_minibatches(const std::vector<int64_t>& order,
                                                   int64_t count);

}  // namespace praetor
