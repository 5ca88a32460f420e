#pragma once

#include "learners/optim/optimizer.h"

namespace praetor {

/// Stochastic gradient descent, the arithmetic of torch.optim.SGD without dampening.
///
///   g <- g + decay w;  b <- momentum b + g;  d = g + momentum b (nesterov), else b
///   w <- w - lr d
///
/// Weight decay is part of the gradient here (L2), not decoupled from it. b ("momentum") is kept
/// where momentum is above 0: of the weight's type, or in bfloat16, rounded stochastically.
class Sgd final : public Optimizer {
 public:
  Sgd(OptimizerSetup setup, OptimizerConfig config);

 private:
  void update(double learning_rate) override;
};

}  // namespace praetor
