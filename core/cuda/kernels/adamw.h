#pragma once

#include <cmath>
#include <cstdint>

#include "core/cuda/bfloat16.h"
#include "core/cuda/block.h"

namespace praetor::cuda {

/// One step of AdamW (arXiv:1711.05101) over a flat vector, in one pass; the operations, and so the
/// bits, of the learners' AdamW in float32 (learners/optim/adamw.h).
struct AdamWKernel {
  static constexpr int kThreads = 256;
  static constexpr int64_t kEach = 4;  ///< elements of a thread
  float *weight, *mean, *square;       ///< [count] master weights and moments
  const float* grad;                   ///< [count]
  Bfloat16* copy;                      ///< [count] the weights rounded, or nullptr
  int64_t count;
  float fresh_mean;           ///< 1 - beta1
  float beta2, fresh_square;  ///< beta2, 1 - beta2
  float keep;                 ///< 1 - learning rate * decay
  float step_size;            ///< learning rate / (1 - beta1^t)
  float root;                 ///< sqrt(1 - beta2^t)
  float eps;

  /// @param step  from 1
  static AdamWKernel with(
      double learning_rate, double beta1, double beta2, double eps, double decay, int64_t step) {
    AdamWKernel k{};
    const auto t = static_cast<double>(step);
    k.fresh_mean = static_cast<float>(1 - beta1);
    k.beta2 = static_cast<float>(beta2);
    k.fresh_square = static_cast<float>(1 - beta2);
    k.keep = static_cast<float>(1 - learning_rate * decay);
    k.step_size = static_cast<float>(learning_rate / (1 - std::pow(beta1, t)));
    k.root = static_cast<float>(std::sqrt(1 - std::pow(beta2, t)));
    k.eps = static_cast<float>(eps);
    return k;
  }

  Grid grid() const { return {blocks_of(count, kThreads * kEach), 1, 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const int64_t end = smaller(count, (at.x + 1) * kThreads * kEach);
    for (int64_t i = at.x * kThreads * kEach + block.thread(); i < end; i += block.threads()) {
      const float g = grad[i];
      const float m = mean[i] + fresh_mean * (g - mean[i]);
      const float v = beta2 * square[i] + fresh_square * g * g;
      const float w = weight[i] * keep - step_size * (m / (sqrtf(v) / root + eps));
      mean[i] = m;
      square[i] = v;
      weight[i] = w;
      if (copy) copy[i] = to_bfloat16(w);
    }
  }
};

}  // namespace praetor::cuda
