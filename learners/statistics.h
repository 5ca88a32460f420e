#pragma once

#include <optional>
#include <string>
#include <vector>

#include "learners/algorithm.h"

namespace praetor {

/// Gathers statistics of micro-batches into the numbers of an update, in the order their names
/// first come.
class Statistics {
 public:
  void add(const Statistic& statistic);
  void add(const std::vector<Statistic>& statistics);
  /// Takes in all of `other`.
  void merge(const Statistics& other);
  /// The value of `name` so far; nothing when it has not come, or its weight is 0.
  std::optional<double> value(const std::string& name) const;
  Metrics metrics() const;

 private:
  std::vector<Statistic> sums_;
};

}  // namespace praetor
