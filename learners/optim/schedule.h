#pragma once

#include <cstdint>
#include <string>

namespace praetor {

/// Learning rate over the steps of a stage, as a factor of the base rate.
///
///   warm-up    step s < warmup_steps: (s + 1) / warmup_steps
///   constant   1
///   linear     1 - (1 - min_ratio) p
///   cosine     min_ratio + (1 - min_ratio) (1 + cos(pi p)) / 2
///   where p = (s - warmup_steps) / (total_steps - warmup_steps), at most 1
struct Schedule {
  std::string shape = "constant";  ///< constant, linear, cosine
  int64_t warmup_steps = 0;        ///< >= 0
  int64_t total_steps = 0;         ///< steps of the stage; needed by linear and cosine
  double min_ratio = 0.0;          ///< [0, 1], floor of linear and cosine

  /// Factor at step `step` (0 = the first update).
  /// @throws InvalidArgument for an unknown shape, or linear and cosine without total_steps
  double factor(int64_t step) const;
};

}  // namespace praetor
