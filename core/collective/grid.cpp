#include "core/collective/grid.h"

#include "core/base/error.h"

namespace praetor {

CollectiveGrid make_grid(Collective& ranks,
                         int32_t width,
                         const std::string& rows,
                         const std::string& columns) {
  if (width < 1 || ranks.world_size() % width != 0) {
    throw InvalidArgument(
        "a grid of ", ranks.world_size(), " ranks in rows of ", width, " does not come out even");
  }
  CollectiveGrid out;
  out.row = ranks.split(rows, ranks.rank() / width, ranks.rank());
  out.column = ranks.split(columns, ranks.rank() % width, ranks.rank());
  return out;
}

}  // namespace praetor
