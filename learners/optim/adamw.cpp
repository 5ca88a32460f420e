#include "learners/optim/adamw.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "learners/optim/elements.h"
#include "learners/optim/rounding.h"

namespace praetor {
namespace {

struct Coefficients {
  double beta1, beta2, eps;
  double keep;       ///< 1 - lr * decay
  double step_size;  ///< lr / (1 - beta1^t)
  double root;       ///< sqrt(1 - beta2^t)
};

template <typename T>
void update_elements(T* __restrict weight,
                     const T* __restrict grad,
                     T* __restrict m,
                     T* __restrict v,
                     int64_t count,
                     const Coefficients& c) {
  const T lerp = static_cast<T>(1 - c.beta1);
  const T beta2 = static_cast<T>(c.beta2);
  const T fresh = static_cast<T>(1 - c.beta2);
  const T keep = static_cast<T>(c.keep);
  const T step_size = static_cast<T>(c.step_size);
  const T root = static_cast<T>(c.root);
  const T eps = static_cast<T>(c.eps);
  for (int64_t i = 0; i < count; ++i) {
    const T g = grad[i];
    m[i] = m[i] + lerp * (g - m[i]);
    v[i] = beta2 * v[i] + fresh * g * g;
    weight[i] = weight[i] * keep - step_size * (m[i] / (std::sqrt(v[i]) / root + eps));
  }
}

constexpr int64_t kBlock = 512;  ///< elements whose wide moments are at hand at once

/// The same with moments that are kept in bfloat16. @param first  index in the whole parameter
void update_coarse(float* weight,
                   const float* grad,
                   uint16_t* m,
                   uint16_t* v,
                   int64_t count,
                   const Coefficients& c,
                   uint64_t key,
                   int64_t step,
                   int64_t first) {
  std::array<float, kBlock> wide_m, wide_v;
  std::array<uint32_t, kBlock> bits;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    for (int64_t i = 0; i < n; ++i) wide_m[size_t(i)] = from_bfloat16(m[begin + i]);
    for (int64_t i = 0; i < n; ++i) wide_v[size_t(i)] = from_bfloat16(v[begin + i]);
    update_elements(weight + begin, grad + begin, wide_m.data(), wide_v.data(), n, c);
    rounding_bits(key, step, first + begin, n, bits.data());
    for (int64_t i = 0; i < n; ++i)
      m[begin + i] = round_stochastically(wide_m[size_t(i)], bits[size_t(i)] & 0xffffu);
    for (int64_t i = 0; i < n; ++i)
      v[begin + i] = round_stochastically(wide_v[size_t(i)], bits[size_t(i)] >> 16);
  }
}

template <typename T>
void update_whole(const at::Tensor& weight,
                  const at::Tensor& grad,
                  const at::Tensor& m,
                  const at::Tensor& v,
                  int64_t begin,
                  int64_t end,
                  const Coefficients& c) {
  update_elements(weight.mutable_data_ptr<T>() + begin,
                  grad.const_data_ptr<T>() + begin,
                  m.mutable_data_ptr<T>() + begin,
                  v.mutable_data_ptr<T>() + begin,
                  end - begin,
                  c);
}

/// update_elements on another device, one rounding an operation. A division by a number would be a
/// product there: by a tensor it is one.
void update_tensors(const at::Tensor& weight,
                    const at::Tensor& grad,
                    const at::Tensor& m,
                    const at::Tensor& v,
                    const Coefficients& c) {
  const at::Tensor root = at::full({}, c.root, weight.options());
  m.add_((grad - m).mul_(1 - c.beta1));
  v.mul_(c.beta2).add_((grad * (1 - c.beta2)).mul_(grad));
  const at::Tensor step = m / v.sqrt().div_(root).add_(c.eps);
  weight.mul_(c.keep).sub_(step * c.step_size);
}

/// The same with moments that are kept in bfloat16. @param first  index in the whole parameter
void update_coarse_tensors(const at::Tensor& weight,
                           const at::Tensor& grad,
                           const at::Tensor& m,
                           const at::Tensor& v,
                           const Coefficients& c,
                           uint64_t key,
                           int64_t step,
                           int64_t first) {
  const at::Tensor wide_m = m.to(at::kFloat), wide_v = v.to(at::kFloat);
  update_tensors(weight, grad, wide_m, wide_v, c);
  const RoundingBits bits = rounding_bits(key, step, first, weight.numel(), weight.device());
  m.copy_(round_stochastically(wide_m, bits.low));
  v.copy_(round_stochastically(wide_v, bits.high));
}

}  // namespace

AdamW::AdamW(OptimizerSetup setup, OptimizerConfig config)
    : Optimizer(std::move(setup), std::move(config)) {}

AdamW::AdamW(const std::vector<NamedTensor>& parameters, OptimizerConfig config)
    : AdamW({.parameters = parameters, .owned = parameters}, std::move(config)) {}

void AdamW::update(double learning_rate) {
  const auto t = static_cast<double>(steps());
  const Coefficients all{.beta1 = config().beta1,
                         .beta2 = config().beta2,
                         .eps = config().eps,
                         .keep = 1,
                         .step_size = 0,
                         .root = std::sqrt(1 - std::pow(config().beta2, t))};
  over_elements([&](const Piece& piece, const at::Tensor& grad, int64_t begin, int64_t end) {
    const Whole& whole = wholes_[piece.whole];
    const double rate = learning_rate * whole.rate;
    Coefficients c = all;
    c.keep = 1 - rate * whole.decay;
    c.step_size = rate / (1 - std::pow(c.beta1, t));
    const at::Tensor &weight = piece.weight, &m = piece.states[0], &v = piece.states[1];
    if (!weight.is_cpu()) {
      const auto part = [&](const at::Tensor& of) { return elements_of(of, begin, end); };
      if (m.scalar_type() == weight.scalar_type())
        return update_tensors(part(weight), part(grad), part(m), part(v), c);
      return update_coarse_tensors(
          part(weight), part(grad), part(m), part(v), c, whole.key, steps(), piece.begin + begin);
    }
    if (weight.scalar_type() == at::kDouble) {
      update_whole<double>(weight, grad, m, v, begin, end, c);
    } else if (m.scalar_type() == at::kFloat) {
      update_whole<float>(weight, grad, m, v, begin, end, c);
    } else {
      update_coarse(weight.mutable_data_ptr<float>() + begin,
                    grad.const_data_ptr<float>() + begin,
                    static_cast<uint16_t*>(m.mutable_data_ptr()) + begin,
                    static_cast<uint16_t*>(v.mutable_data_ptr()) + begin,
                    end - begin,
                    c,
                    whole.key,
                    steps(),
                    piece.begin + begin);
    }
  });
}

}  // namespace praetor
