#include "learners/algorithms/kl_controller.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"

namespace praetor {

KlController KlController::adaptive(double coefficient, double target, double horizon) {
  if (!(target > 0) || !(horizon > 0)) {
    throw InvalidArgument(
        "adaptive KL controller: target ", target, " and horizon ", horizon, " must be above 0");
  }
  return {coefficient, target, horizon};
}

void KlController::update(double kl, double sequences) {
  if (horizon_ == 0 || !std::isfinite(kl)) return;
  const double error = std::clamp(kl / target_ - 1.0, -0.2, 0.2);
  coefficient_ *= 1.0 + error * sequences / horizon_;
}

}  // namespace praetor
