#include "learners/optim/sgd.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <utility>

#include "learners/optim/elements.h"
#include "learners/optim/rounding.h"

namespace praetor {
namespace {

struct Coefficients {
  double rate, decay, momentum;
  bool nesterov;
};

template <typename T>
void update_plain(T* __restrict weight,
                  const T* __restrict grad,
                  int64_t count,
                  const Coefficients& c) {
  const T rate = static_cast<T>(c.rate), decay = static_cast<T>(c.decay);
  for (int64_t i = 0; i < count; ++i) {
    const T g = grad[i] + decay * weight[i];
    weight[i] = weight[i] - rate * g;
  }
}

template <typename T>
void update_elements(T* __restrict weight,
                     const T* __restrict grad,
                     T* __restrict buffer,
                     int64_t count,
                     const Coefficients& c) {
  const T rate = static_cast<T>(c.rate), decay = static_cast<T>(c.decay);
  const T momentum = static_cast<T>(c.momentum);
  // d = ahead g + along b
  const T ahead = c.nesterov ? T{1} : T{0}, along = c.nesterov ? momentum : T{1};
  for (int64_t i = 0; i < count; ++i) {
    const T g = grad[i] + decay * weight[i];
    buffer[i] = momentum * buffer[i] + g;
    weight[i] = weight[i] - rate * (ahead * g + along * buffer[i]);
  }
}

constexpr int64_t kBlock = 512;  ///< elements whose wide momentum is at hand at once

/// The same with a momentum that is kept in bfloat16. @param first  index in the whole parameter
void update_coarse(float* weight,
                   const float* grad,
                   uint16_t* buffer,
                   int64_t count,
                   const Coefficients& c,
                   uint64_t key,
                   int64_t step,
                   int64_t first) {
  std::array<float, kBlock> wide;
  std::array<uint32_t, kBlock> bits;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    for (int64_t i = 0; i < n; ++i) wide[size_t(i)] = from_bfloat16(buffer[begin + i]);
    update_elements(weight + begin, grad + begin, wide.data(), n, c);
    rounding_bits(key, step, first + begin, n, bits.data());
    for (int64_t i = 0; i < n; ++i)
      buffer[begin + i] = round_stochastically(wide[size_t(i)], bits[size_t(i)] & 0xffffu);
  }
}

template <typename T>
void update_whole(const at::Tensor& weight,
                  const at::Tensor& grad,
                  const at::Tensor& buffer,
                  int64_t begin,
                  int64_t end,
                  const Coefficients& c) {
  T* const w = weight.mutable_data_ptr<T>() + begin;
  const T* const g = grad.const_data_ptr<T>() + begin;
  if (buffer.defined()) {
    update_elements(w, g, buffer.mutable_data_ptr<T>() + begin, end - begin, c);
  } else {
    update_plain(w, g, end - begin, c);
  }
}

/// update_plain and update_elements on another device, one rounding an operation.
void update_tensors(const at::Tensor& weight,
                    const at::Tensor& grad,
                    const at::Tensor& buffer,
                    const Coefficients& c) {
  at::Tensor step = grad + weight * c.decay;
  if (buffer.defined()) {
    buffer.mul_(c.momentum).add_(step);
    step = c.nesterov ? step + buffer * c.momentum : buffer;
  }
  weight.sub_(step * c.rate);
}

}  // namespace

Sgd::Sgd(OptimizerSetup setup, OptimizerConfig config)
    : Optimizer(std::move(setup), std::move(config)) {}

void Sgd::update(double learning_rate) {
  over_elements([&](const Piece& piece, const at::Tensor& grad, int64_t begin, int64_t end) {
    const Whole& whole = wholes_[piece.whole];
    const Coefficients c{.rate = learning_rate * whole.rate,
                         .decay = whole.decay,
                         .momentum = config().momentum,
                         .nesterov = config().nesterov};
    const at::Tensor buffer = piece.states.empty() ? at::Tensor() : piece.states[0];
    const at::Tensor& weight = piece.weight;
    if (!weight.is_cpu()) {
      const auto part = [&](const at::Tensor& t) { return elements_of(t, begin, end); };
      const at::Tensor own = buffer.defined() ? part(buffer) : buffer;
      if (!own.defined() || own.scalar_type() == weight.scalar_type())
        return update_tensors(part(weight), part(grad), own, c);
      const at::Tensor wide = own.to(at::kFloat);
      update_tensors(part(weight), part(grad), wide, c);
      const RoundingBits bits =
          rounding_bits(whole.key, steps(), piece.begin + begin, end - begin, weight.device());
      own.copy_(round_stochastically(wide, bits.low));
      return;
    }
    if (weight.scalar_type() == at::kDouble) {
      update_whole<double>(weight, grad, buffer, begin, end, c);
    } else if (!buffer.defined() || buffer.scalar_type() == at::kFloat) {
      update_whole<float>(weight, grad, buffer, begin, end, c);
    } else {
      update_coarse(weight.mutable_data_ptr<float>() + begin,
                    grad.const_data_ptr<float>() + begin,
                    static_cast<uint16_t*>(buffer.mutable_data_ptr()) + begin,
                    end - begin,
                    c,
                    whole.key,
                    steps(),
                    piece.begin + begin);
    }
  });
}

}  // namespace praetor
