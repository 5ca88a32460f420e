#pragma once

#include <cstdint>
#include <vector>

#include "core/cuda/kernels/adamw.h"
#include "learners/optim/optimizer.h"

namespace praetor {

/// Adam with decoupled weight decay (arXiv:1711.05101), the arithmetic of torch.optim.AdamW.
///
///   w <- w (1 - lr decay);  m <- m + (1 - b1)(g - m);  v <- b2 v + (1 - b2) g^2
///   w <- w - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
///
/// One pass over each piece, and on a GPU one kernel (OptimizerConfig::kernels). m ("exp_avg") and
/// v ("exp_avg_sq") are of the weight's type, or with `state_dtype: bfloat16` are rounded
/// stochastically as they are stored; a step uses them as they were before that.
class AdamW final : public Optimizer {
 public:
  AdamW(OptimizerSetup setup, OptimizerConfig config);
  /// On whole parameters.
  AdamW(const std::vector<NamedTensor>& parameters, OptimizerConfig config);

 private:
  void update(double learning_rate) override;
  /// Of elements [begin, end) of a piece on another device than the CPU.
  void update_on_device(const Piece& piece,
                        const at::Tensor& grad,
                        int64_t begin,
                        int64_t end,
                        double learning_rate) const;
  template <typename T>
  cuda::AdamWStep<T> step_of(const Whole& whole, double learning_rate) const;
};

}  // namespace praetor
