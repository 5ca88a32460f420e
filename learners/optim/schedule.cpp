#include "learners/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/error.h"

namespace praetor {

double Schedule::factor(int64_t step) const {
  if (shape != "constant" && shape != "linear" && shape != "cosine") {
    throw InvalidArgument(
        "schedule \"", shape, "\" is not known; there are constant, linear, cosine");
  }
  if (step < warmup_steps) {
    return static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  }
  if (shape == "constant") return 1.0;
  if (total_steps <= 0) {
    throw InvalidArgument(
        "schedule ", shape, " needs the number of steps of its stage, got ", total_steps);
  }
  const double span = static_cast<double>(std::max<int64_t>(total_steps - warmup_steps, 1));
  const double progress = std::min(1.0, static_cast<double>(step - warmup_steps) / span);
  const double shrink =
      shape == "linear" ? 1.0 - progress : (1.0 + std::cos(std::numbers::pi * progress)) / 2;
  return min_ratio + (1.0 - min_ratio) * shrink;
}

}  // namespace praetor
