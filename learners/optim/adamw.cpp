#include "learners/optim/adamw.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "core/cuda/device.h"
#include "learners/optim/elements.h"
#include "learners/optim/rounding.h"

namespace praetor {
namespace {

using cuda::AdamWStep;

template <typename T>
void update_elements(T* __restrict weight,
                     const T* __restrict grad,
                     T* __restrict m,
                     T* __restrict v,
                     int64_t count,
                     const AdamWStep<T>& step) {
  const AdamWStep<T> by = step;  // which no store changes
  for (int64_t i = 0; i < count; ++i) by.update(weight[i], grad[i], m[i], v[i]);
}

constexpr int64_t kBlock = 512;  ///< elements whose wide moments are at hand at once

/// The same with moments that are kept in bfloat16. @param first  index in the whole parameter
void update_coarse(float* weight,
                   const float* grad,
                   uint16_t* m,
                   uint16_t* v,
                   int64_t count,
                   const AdamWStep<float>& by,
                   uint64_t key,
                   int64_t step,
                   int64_t first) {
  std::array<float, kBlock> wide_m, wide_v;
  std::array<uint32_t, kBlock> bits;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    for (int64_t i = 0; i < n; ++i) wide_m[size_t(i)] = from_bfloat16(m[begin + i]);
    for (int64_t i = 0; i < n; ++i) wide_v[size_t(i)] = from_bfloat16(v[begin + i]);
    update_elements(weight + begin, grad + begin, wide_m.data(), wide_v.data(), n, by);
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
                  const AdamWStep<T>& by) {
  update_elements(weight.mutable_data_ptr<T>() + begin,
                  grad.const_data_ptr<T>() + begin,
                  m.mutable_data_ptr<T>() + begin,
                  v.mutable_data_ptr<T>() + begin,
                  end - begin,
                  by);
}

/// update_elements on another device, one rounding an operation. A division by a number would be a
/// product there: by a tensor it is one.
void update_tensors(const at::Tensor& weight,
                    const at::Tensor& grad,
                    const at::Tensor& m,
                    const at::Tensor& v,
                    const AdamWStep<double>& by) {
  const at::Tensor root = at::full({}, by.root, weight.options());
  m.add_((grad - m).mul_(by.fresh_mean));
  v.mul_(by.beta2).add_((grad * by.fresh_square).mul_(grad));
  const at::Tensor step = m / v.sqrt().div_(root).add_(by.eps);
  weight.mul_(by.keep).sub_(step * by.step_size);
}

/// The same with moments that are kept in bfloat16. @param first  index in the whole parameter
void update_coarse_tensors(const at::Tensor& weight,
                           const at::Tensor& grad,
                           const at::Tensor& m,
                           const at::Tensor& v,
                           const AdamWStep<double>& by,
                           uint64_t key,
                           int64_t step,
                           int64_t first) {
  const at::Tensor wide_m = m.to(at::kFloat), wide_v = v.to(at::kFloat);
  update_tensors(weight, grad, wide_m, wide_v, by);
  const RoundingBits bits = rounding_bits(key, step, first, weight.numel(), weight.device());
  m.copy_(round_stochastically(wide_m, bits.low));
  v.copy_(round_stochastically(wide_v, bits.high));
}

/// What either kernel has.
template <typename Kernel, typename Moment>
Kernel kernel_of(const at::Tensor& weight,
                 const at::Tensor& grad,
                 const at::Tensor& m,
                 const at::Tensor& v,
                 const AdamWStep<float>& by) {
  Kernel out{};
  out.by = by;
  out.weight = weight.mutable_data_ptr<float>();
  out.mean = static_cast<Moment*>(m.mutable_data_ptr());
  out.square = static_cast<Moment*>(v.mutable_data_ptr());
  out.grad = grad.const_data_ptr<float>();
  out.count = weight.numel();
  return out;
}

}  // namespace

AdamW::AdamW(OptimizerSetup setup, OptimizerConfig config)
    : Optimizer(std::move(setup), std::move(config)) {}

AdamW::AdamW(const std::vector<NamedTensor>& parameters, OptimizerConfig config)
    : AdamW({.parameters = parameters, .owned = parameters}, std::move(config)) {}

template <typename T>
AdamWStep<T> AdamW::step_of(const Whole& whole, double learning_rate) const {
  return AdamWStep<T>::of(learning_rate * whole.rate,
                          config().beta1,
                          config().beta2,
                          config().eps,
                          whole.decay,
                          steps());
}

void AdamW::update_on_device(const Piece& piece,
                             const at::Tensor& grad,
                             int64_t begin,
                             int64_t end,
                             double learning_rate) const {
  const Whole& whole = wholes_[piece.whole];
  const auto part = [&](const at::Tensor& of) { return elements_of(of, begin, end); };
  const at::Tensor weight = part(piece.weight), g = part(grad);
  const at::Tensor m = part(piece.states[0]), v = part(piece.states[1]);
  const int64_t first = piece.begin + begin;
  const bool coarse = m.scalar_type() != weight.scalar_type();
  if (config().kernels && weight.scalar_type() == at::kFloat) {
    const auto by = step_of<float>(whole, learning_rate);
    if (!coarse)
      return config().kernels->launch(kernel_of<cuda::AdamWKernel, float>(weight, g, m, v, by));
    auto kernel = kernel_of<cuda::CoarseAdamWKernel, cuda::Bfloat16>(weight, g, m, v, by);
    kernel.first = first;
    kernel.key = whole.key;
    kernel.step = steps();
    return config().kernels->launch(kernel);
  }
  const auto by = step_of<double>(whole, learning_rate);
  if (!coarse) return update_tensors(weight, g, m, v, by);
  update_coarse_tensors(weight, g, m, v, by, whole.key, steps(), first);
}

void AdamW::update(double learning_rate) {
  const auto work = [&](const Piece& piece, const at::Tensor& grad, int64_t begin, int64_t end) {
    const at::Tensor &weight = piece.weight, &m = piece.states[0], &v = piece.states[1];
    if (!weight.is_cpu()) return update_on_device(piece, grad, begin, end, learning_rate);
    const Whole& whole = wholes_[piece.whole];
    if (weight.scalar_type() == at::kDouble) {
      const auto by = step_of<double>(whole, learning_rate);
      return update_whole<double>(weight, grad, m, v, begin, end, by);
    }
    const auto by = step_of<float>(whole, learning_rate);
    if (m.scalar_type() == at::kFloat)
      return update_whole<float>(weight, grad, m, v, begin, end, by);
    update_coarse(weight.mutable_data_ptr<float>() + begin,
                  grad.const_data_ptr<float>() + begin,
                  static_cast<uint16_t*>(m.mutable_data_ptr()) + begin,
                  static_cast<uint16_t*>(v.mutable_data_ptr()) + begin,
                  end - begin,
                  by,
                  whole.key,
                  steps(),
                  piece.begin + begin);
  };
  // A kernel makes no temporaries: it takes a piece at once.
  over_elements(work, config().kernels ? std::numeric_limits<int64_t>::max() : kDeviceElements);
}

}  // namespace praetor
