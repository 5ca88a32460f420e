#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/collective/collective.h"

namespace praetor {

/// Ranks in rows of equal width: rank = row * width + column. Two kinds of parallelism meet so: one
/// within a row (neighbours, a node), the other down a column. A row can be laid out as a grid
/// again.
struct CollectiveGrid {
  std::unique_ptr<Collective> row;     ///< of `width` consecutive ranks; rank() is the column
  std::unique_ptr<Collective> column;  ///< of the same place in every row; rank() is the row
};

/// Every rank of `ranks`, which must outlive the grid. The names are for messages.
/// @throws InvalidArgument unless `width` divides the ranks; as Collective::split
CollectiveGrid make_grid(Collective& ranks,
                         int32_t width,
                         const std::string& rows = "row",
                         const std::string& columns = "column");

}  // namespace praetor
