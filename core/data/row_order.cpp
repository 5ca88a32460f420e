#include "core/data/row_order.h"

#include "core/data/dataset.h"

namespace praetor {

namespace {

constexpr size_t kEpochsKept = 4;

}  // namespace

int64_t RowOrder::row(int64_t ordinal) const {
  auto found = orders_.find(epoch(ordinal));
  if (found == orders_.end()) {
    if (orders_.size() >= kEpochsKept) orders_.erase(orders_.begin());
    found = orders_
                .emplace(epoch(ordinal),
                         epoch_order(rows_, epoch(ordinal), job_seed_, stage_, shuffle_))
                .first;
  }
  return found->second[static_cast<size_t>(ordinal % rows_)];
}

}  // namespace praetor
