#pragma once

#include <cmath>
#include <cstdint>

#include "core/base/stochastic_rounding.h"
#include "core/cuda/bfloat16.h"
#include "core/cuda/block.h"

namespace praetor::cuda {

/// A step of AdamW (arXiv:1711.05101; learners/optim/adamw.h) in type T, on the processor and on a
/// GPU: one order of operations, each rounded.
template <typename T>
struct AdamWStep {
  T fresh_mean;           ///< 1 - beta1
  T beta2, fresh_square;  ///< beta2, 1 - beta2
  T keep;                 ///< 1 - learning rate * decay
  T step_size;            ///< learning rate / (1 - beta1^t)
  T root;                 ///< sqrt(1 - beta2^t)
  T eps;

  /// @param step  t, from 1
  static AdamWStep of(
      double learning_rate, double beta1, double beta2, double eps, double decay, int64_t step) {
    const auto t = static_cast<double>(step);
    return {.fresh_mean = static_cast<T>(1 - beta1),
            .beta2 = static_cast<T>(beta2),
            .fresh_square = static_cast<T>(1 - beta2),
            .keep = static_cast<T>(1 - learning_rate * decay),
            .step_size = static_cast<T>(learning_rate / (1 - std::pow(beta1, t))),
            .root = static_cast<T>(std::sqrt(1 - std::pow(beta2, t))),
            .eps = static_cast<T>(eps)};
  }

  PRAETOR_HD void update(T& weight, T grad, T& mean, T& square) const {
    mean = mean + fresh_mean * (grad - mean);
    square = beta2 * square + fresh_square * grad * grad;
    weight = weight * keep - step_size * (mean / (std::sqrt(square) / root + eps));
  }
};

/// The step of a flat vector, in one pass.
struct AdamWKernel {
  static constexpr int kThreads = 256;
  static constexpr int64_t kEach = 4;  ///< elements of a thread
  AdamWStep<float> by;
  float *weight, *mean, *square;  ///< [count] master weights and moments
  const float* grad;              ///< [count]
  int64_t count;

  Grid grid() const { return {blocks_of(count, kThreads * kEach), 1, 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const int64_t end = smaller(count, (at.x + 1) * kThreads * kEach);
    for (int64_t i = at.x * kThreads * kEach + block.thread(); i < end; i += block.threads())
      by.update(weight[i], grad[i], mean[i], square[i]);
  }
};

/// The same with moments that are kept in bfloat16: widened, and rounded stochastically as they are
/// stored, after the weight is stepped by them.
struct CoarseAdamWKernel {
  static constexpr int kThreads = 256;
  AdamWStep<float> by;
  float* weight;            ///< [count] master weights
  Bfloat16 *mean, *square;  ///< [count]
  const float* grad;        ///< [count]
  int64_t count;            ///< > 0
  int64_t first;            ///< index of element 0 in the whole parameter
  uint64_t key;             ///< of rounding, like `step`
  int64_t step;

  Grid grid() const { return {blocks_of(end_group() - first_group(), kThreads), 1, 1}; }
  int64_t memory() const { return 0; }
  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const int64_t begin = first_group() + at.x * kThreads;
    const int64_t end = smaller(end_group(), begin + kThreads);
    // A thread has the elements that get their bits together; of the outer groups not all are here.
    for (int64_t group = begin + block.thread(); group < end; group += block.threads()) {
      const PhiloxWords random = rounding_words(key, step, group);
      for (int64_t k = 0; k < kRoundedTogether; ++k) {
        const int64_t i = group * kRoundedTogether + k - first;
        if (i < 0 || i >= count) continue;
        float m = to_float(mean[i]), v = to_float(square[i]);
        by.update(weight[i], grad[i], m, v);
        mean[i] = {round_stochastically(m, random.at[k] & 0xffffu)};
        square[i] = {round_stochastically(v, random.at[k] >> 16)};
      }
    }
  }

 private:
  PRAETOR_HD int64_t first_group() const { return first / kRoundedTogether; }
  PRAETOR_HD int64_t end_group() const { return blocks_of(first + count, kRoundedTogether); }
};

}  // namespace praetor::cuda
