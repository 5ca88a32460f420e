#pragma once

#include <optional>
#include <span>
#include <string>

#include "core/data/sample.h"
#include "reward/reward_config.h"

namespace praetor {

/// What a part's result counts for where it is used: itself, or what `on_error` puts in the place
/// of a failed one.
struct PartOutcome {
  bool failed = false;  ///< there is no result; the rest is empty
  bool not_applicable = false;
  double score = 0.0;
  std::optional<bool> verdict;
};
PartOutcome outcome_of(const PartConfig& part, const PartScore& result);

/// The result of a tree from its children's, as TreeKind says; weight and name are left alone. A
/// child that failed fails the tree, and the tree's error names it.
/// @param children  one for each child of `tree`, in order
PartScore tree_result(const PartConfig& tree, std::span<const PartScore> children);

}  // namespace praetor
