#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <numbers>
#include <optional>

#include "core/base/error.h"
#include "core/model/kernels/rows.h"
#include "core/model/ops.h"
#include "core/model/ops_checks.h"
#include "core/model/ops_reference.h"

namespace praetor::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

at::Tensor forward_swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return uses_kernels(gate) ? kernels::swiglu(gate, up) : reference::swiglu(gate, up);
}

// gelu(gate), times `up` where that is defined.
at::Tensor forward_gelu(const at::Tensor& gate, const at::Tensor& up) {
  if (uses_kernels(gate)) return kernels::gelu(gate, up);
  return up.defined() ? reference::gelu(gate) * up : reference::gelu(gate);
}

at::Tensor forward_softcap(const at::Tensor& x, double cap) {
  return uses_kernels(x) ? kernels::softcap(x, cap) : reference::softcap(x, cap);
}

struct Swiglu : torch::autograd::Function<Swiglu> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& gate,
                            const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return forward_swiglu(gate, up);
  }
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor& gate = saved[0];
    if (uses_kernels(gate)) {
      auto to = kernels::swiglu_backward(grads[0], gate, saved[1]);
      return {to.gate, to.up};
    }
    const at::Tensor sigmoid = at::sigmoid(gate);
    at::Tensor to_gate, to_up;
    if (context->needs_input_grad(0)) {
      to_gate = grads[0] * saved[1] * (sigmoid * (gate * (1 - sigmoid) + 1));
    }
    if (context->needs_input_grad(1)) to_up = grads[0] * gate * sigmoid;
    return {to_gate, to_up};
  }
};

struct Gelu : torch::autograd::Function<Gelu> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& gate,
                            const std::optional<at::Tensor>& up) {
    context->save_for_backward({gate, up.value_or(at::Tensor())});
    return forward_gelu(gate, up.value_or(at::Tensor()));
  }
  // With u = sqrt(2 / pi) (x + 0.044715 x^3) and t = tanh(u):
  // gelu = x (1 + t) / 2, gelu' = (1 + t) / 2 + x (1 - t^2) u' / 2.
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &up = saved[1];
    if (uses_kernels(x)) {
      auto to = kernels::gelu_backward(grads[0], x, up);
      return {to.gate, to.up};
    }
    const double root = std::sqrt(2.0 / std::numbers::pi);
    const at::Tensor square = x * x;
    const at::Tensor t = (x * (square * 0.044715 + 1) * root).tanh();
    const at::Tensor half = (t + 1) * 0.5;
    at::Tensor to_gate, to_up;
    if (context->needs_input_grad(0)) {
      const at::Tensor slope = (square * (3 * 0.044715) + 1) * root;
      to_gate = grads[0] * (half + x * (1 - t * t) * slope * 0.5);
      if (up.defined()) to_gate = to_gate * up;
    }
    if (up.defined() && context->needs_input_grad(1)) to_up = grads[0] * x * half;
    return {to_gate, to_up};
  }
};

struct Softcap : torch::autograd::Function<Softcap> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, double cap) {
    at::Tensor out = forward_softcap(x, cap);
    context->save_for_backward({out});
    context->saved_data["cap"] = cap;
    return out;
  }
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const at::Tensor t = context->get_saved_variables()[0] / context->saved_data["cap"].toDouble();
    return {grads[0] * (1 - t * t), {}};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  check_gated("swiglu", gate, up);
  const bool grad = at::GradMode::is_enabled() && (gate.requires_grad() || up.requires_grad());
  return grad ? Swiglu::apply(gate, up) : forward_swiglu(gate, up);
}

at::Tensor gelu(const at::Tensor& x) {
  check_gelu(x);
  const bool grad = at::GradMode::is_enabled() && x.requires_grad();
  return grad ? Gelu::apply(x, std::nullopt) : forward_gelu(x, {});
}

at::Tensor geglu(const at::Tensor& gate, const at::Tensor& up) {
  check_gated("geglu", gate, up);
  const bool grad = at::GradMode::is_enabled() && (gate.requires_grad() || up.requires_grad());
  return grad ? Gelu::apply(gate, std::optional(up)) : forward_gelu(gate, up);
}

at::Tensor softcap(const at::Tensor& x, double cap) {
  check_softcap(x, cap);
  const bool grad = at::GradMode::is_enabled() && x.requires_grad();
  return grad ? Softcap::apply(x, cap) : forward_softcap(x, cap);
}

at::Tensor logits(const at::Tensor& hidden, const LanguageHead& head) {
  PRAETOR_CHECK(!head.group, "logits of one rank's part of a vocabulary");
  const at::Tensor out = ops::linear(hidden, head.weight);
  return head.softcap > 0 ? softcap(out, head.softcap) : out;
}

}  // namespace praetor::ops
