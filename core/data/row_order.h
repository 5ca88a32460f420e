#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace praetor {

/// Which row of a data set each ordinal of a stage is: pass after pass over the rows, in a seeded
/// order of their own. One thread at a time.
class RowOrder {
 public:
  /// @param rows  >= 1
  RowOrder(int64_t rows, uint64_t job_seed, uint32_t stage, bool shuffle)
      : rows_(rows), job_seed_(job_seed), stage_(stage), shuffle_(shuffle) {}

  int64_t rows() const { return rows_; }
  int64_t epoch(int64_t ordinal) const { return ordinal / rows_; }
  int64_t row(int64_t ordinal) const;

 private:
  int64_t rows_;
  uint64_t job_seed_;
  uint32_t stage_;
  bool shuffle_;
  mutable std::map<int64_t, std::vector<int64_t>> orders_;  ///< of the last few epochs asked for
};

}  // namespace praetor
