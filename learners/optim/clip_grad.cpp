#include "learners/optim/clip_grad.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "learners/optim/elements.h"

namespace praetor {
namespace {

/// Sum of squares in float64: eight running sums, added in a fixed order, so that the loop is fast
/// and repeats.
template <typename T>
double sum_of_squares(const T* x, int64_t count) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int64_t k = 0; k < 8; ++k)
      lanes[k] += static_cast<double>(x[i + k]) * static_cast<double>(x[i + k]);
  }
  double tail = 0;
  for (; i < count; ++i) tail += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7])) + tail;
}

/// The same on another device, in an order of its own that repeats: [] float64 there.
at::Tensor device_sum_of_squares(const at::Tensor& flat) {
  at::Tensor total = at::zeros({}, flat.options().dtype(at::kDouble));
  for (int64_t begin = 0; begin < flat.numel(); begin += kDeviceElements) {
    const int64_t end = std::min(begin + kDeviceElements, flat.numel());
    total.add_(flat.slice(0, begin, end).to(at::kDouble).square_().sum());
  }
  return total;
}

}  // namespace

double grad_square_sum(const std::vector<NamedTensor>& parameters) {
  double total = 0;
  at::Tensor elsewhere;  // one number comes from the device, not one a parameter
  for (const NamedTensor& parameter : parameters) {
    const at::Tensor& grad = parameter.tensor.grad();
    if (!grad.defined()) continue;
    const at::Tensor flat = grad.contiguous();
    if (!flat.is_cpu()) {
      const at::Tensor own = device_sum_of_squares(flat.view(-1));
      elsewhere = elsewhere.defined() ? elsewhere.add_(own) : own;
      continue;
    }
    total += flat.scalar_type() == at::kDouble
                 ? sum_of_squares(flat.const_data_ptr<double>(), flat.numel())
                 : sum_of_squares(flat.to(at::kFloat).const_data_ptr<float>(), flat.numel());
  }
  return elsewhere.defined() ? total + elsewhere.item<double>() : total;
}

double grad_norm(const std::vector<NamedTensor>& parameters) {
  return std::sqrt(grad_square_sum(parameters));
}

void scale_gradients(const std::vector<NamedTensor>& parameters, double norm, double max_norm) {
  const double scale = max_norm / (norm + 1e-6);
  if (max_norm > 0 && scale < 1) {
    for (const NamedTensor& parameter : parameters) {
      if (parameter.tensor.grad().defined()) parameter.tensor.grad().mul_(scale);
    }
  }
}

double clip_grad_norm(const std::vector<NamedTensor>& parameters, double max_norm) {
  const double norm = grad_norm(parameters);
  scale_gradients(parameters, norm, max_norm);
  return norm;
}

}  // namespace praetor
