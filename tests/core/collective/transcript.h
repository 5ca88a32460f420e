#pragma once

#include <string>
#include <vector>

#include "core/collective/collective.h"

namespace praetor::testing {

/// Values that differ in size so much that another order of a sum has other bits.
template <typename T>
std::vector<T> uneven(int32_t rank, size_t count);

/// Runs every operation on vectors of many lengths and returns a digest of all that this rank
/// received: what backends are compared by.
std::string collective_transcript(Collective& ranks);

/// The same over groups of `ranks`: halves, a grid, and groups of groups.
std::string group_transcript(Collective& ranks);

}  // namespace praetor::testing
