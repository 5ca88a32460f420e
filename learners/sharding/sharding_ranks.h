#pragma once

#include <cstdint>

#include "core/collective/grid.h"

namespace praetor {

/// The ranks of a learner as sharding sees them: those of `shards` keep one copy of its tensors
/// together, a part each; those of `replicas` keep the same part, each of another copy. With one
/// copy over all ranks there are no replicas. Borrowed.
struct ShardingRanks {
  Collective* all = nullptr;
  Collective* shards = nullptr;
  Collective* replicas = nullptr;  ///< null: there is one copy

  /// One copy.
  ShardingRanks(Collective& ranks) : all(&ranks), shards(&ranks) {}
  /// A copy in each row of the grid.
  ShardingRanks(Collective& ranks, const CollectiveGrid& grid)
      : all(&ranks),
        shards(grid.row.get()),
        replicas(grid.column->world_size() > 1 ? grid.column.get() : nullptr) {}

  bool alone() const { return all->world_size() == 1; }
  /// Whether anything is kept in parts.
  bool in_parts() const { return shards->world_size() > 1; }
  /// This rank's copy, from 0 on.
  int32_t copy() const { return replicas ? replicas->rank() : 0; }
};

}  // namespace praetor
