#pragma once

#include <vector>

#include "learners/optim/optimizer.h"

namespace praetor {

/// Adam with decoupled weight decay (arXiv:1711.05101), the arithmetic of torch.optim.AdamW.
///
///   w <- w (1 - lr decay);  m <- m + (1 - b1)(g - m);  v <- b2 v + (1 - b2) g^2
///   w <- w - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
///
/// One pass over each piece. m ("exp_avg") and v ("exp_avg_sq") are of the weight's type, or with
/// `state_dtype: bfloat16` are rounded stochastically as they are stored; a step uses them as they
/// were before that.
class AdamW final : public Optimizer {
 public:
  AdamW(OptimizerSetup setup, OptimizerConfig config);
  /// On whole parameters.
  AdamW(const std::vector<NamedTensor>& parameters, OptimizerConfig config);

 private:
  void update(double learning_rate) override;
};

}  // namespace praetor
