#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace praetor {

/// Which ranks a group has and what messages call it.
struct Membership {
  std::string name;              ///< of a group that a split made; none of the whole
  std::vector<int32_t> members;  ///< by rank in the group: their ranks in the whole
  int32_t rank = 0;              ///< this one's in the group
  int64_t id = 0;                ///< no two groups that have ranks in common have the same

  /// All ranks of a job. @throws InvalidArgument unless `rank` is one of them
  static Membership whole(int32_t rank, int32_t world_size);
  /// The group of this rank once `whole` is split.
  /// @param wishes  [3 * ranks of `whole`] of each rank its colour, its key and the largest id that
  /// it has seen
  static Membership part(const Membership& whole,
                         const std::string& name,
                         std::span<const int64_t> wishes);

  int32_t world_size() const { return static_cast<int32_t>(members.size()); }
  int32_t global(int32_t rank_here) const { return members[static_cast<size_t>(rank_here)]; }
  /// "group shards of ranks 2, 3"; of the whole nothing.
  std::string text() const;
  /// "rank 3", and "rank 3, group shards of ranks 2, 3".
  std::string who() const;
};

/// "rank 3", "ranks 2, 3"; of more than eight the first and the last few.
std::string ranks_text(const std::vector<int32_t>& ranks);

}  // namespace praetor
