#include "learners/optim/adamw.h"

#include <ATen/ATen.h>

#include <cmath>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "learners/sharding/flat_layout.h"

namespace praetor {
namespace {

struct Coefficients {
  double beta1, beta2, eps;
  double keep;       ///< 1 - lr * decay
  double step_size;  ///< lr / (1 - beta1^t)
  double root;       ///< sqrt(1 - beta2^t)
};

template <typename T>
void update(T* __restrict weight,
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

}  // namespace

bool is_decayed(const std::string& name) {
  return name.find("norm") == std::string::npos && !name.ends_with(".bias") && name != "bias";
}

AdamW::AdamW(std::vector<NamedTensor> parameters, OptimizerConfig config)
    : parameters_(std::move(parameters)), config_(std::move(config)) {
  std::set<std::string> names;
  for (const NamedTensor& parameter : parameters_) {
    const at::Tensor& t = parameter.tensor;
    const bool known = t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble;
    if (!t.device().is_cpu() || !known || !t.is_contiguous()) {
      throw InvalidArgument("AdamW: ",
                            parameter.name,
                            " is ",
                            t.toString(),
                            "; wanted contiguous float32 or float64 on the CPU");
    }
    if (!names.insert(parameter.name).second) {
      throw InvalidArgument("AdamW: parameter ", parameter.name, " is given twice");
    }
    exp_avg_.push_back(at::zeros_like(t));
    exp_avg_sq_.push_back(at::zeros_like(t));
    decayed_.push_back(is_decayed(split_piece_name(parameter.name).parameter));
  }
}

void AdamW::step(double learning_rate) {
  ++steps_;
  const auto t = static_cast<double>(steps_);
  Coefficients c{.beta1 = config_.beta1,
                 .beta2 = config_.beta2,
                 .eps = config_.eps,
                 .keep = 1,
                 .step_size = learning_rate / (1 - std::pow(config_.beta1, t)),
                 .root = std::sqrt(1 - std::pow(config_.beta2, t))};
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& weight = parameters_[i].tensor;
    if (!weight.grad().defined()) continue;
    const at::Tensor grad = weight.grad().contiguous();
    c.keep = decayed_[i] ? 1 - learning_rate * config_.weight_decay : 1;
    if (weight.scalar_type() == at::kDouble) {
      update(weight.mutable_data_ptr<double>(),
             grad.const_data_ptr<double>(),
             exp_avg_[i].mutable_data_ptr<double>(),
             exp_avg_sq_[i].mutable_data_ptr<double>(),
             weight.numel(),
             c);
    } else {
      update(weight.mutable_data_ptr<float>(),
             grad.const_data_ptr<float>(),
             exp_avg_[i].mutable_data_ptr<float>(),
             exp_avg_sq_[i].mutable_data_ptr<float>(),
             weight.numel(),
             c);
    }
    weight.unsafeGetTensorImpl()->bump_version();
  }
}

void AdamW::zero_grad() {
  for (NamedTensor& parameter : parameters_) parameter.tensor.mutable_grad() = at::Tensor();
}

std::vector<NamedTensor> AdamW::state() const {
  std::vector<NamedTensor> out;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    out.push_back({"exp_avg/" + parameters_[i].name, exp_avg_[i]});
    out.push_back({"exp_avg_sq/" + parameters_[i].name, exp_avg_sq_[i]});
  }
  return out;
}

}  // namespace praetor
