#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/model/kernels/rows.h"
#include "core/model/ops.h"
#include "core/model/ops_checks.h"
#include "core/model/ops_reference.h"

namespace praetor::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

at::Tensor forward_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return uses_kernels(x) ? kernels::rms_norm(x, weight, eps) : reference::rms_norm(x, weight, eps);
}

at::Tensor forward_swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return uses_kernels(gate) ? kernels::swiglu(gate, up) : reference::swiglu(gate, up);
}

at::Tensor forward_rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return uses_kernels(x) && uses_kernels(cos) ? kernels::rope(x, cos, sin)
                                              : reference::rope(x, cos, sin);
}

at::Tensor forward_log_softmax(const at::Tensor& logits) {
  return uses_kernels(logits) ? kernels::log_softmax(logits) : reference::log_softmax(logits);
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& weight,
                            double eps) {
    context->save_for_backward({x, weight});
    context->saved_data["eps"] = eps;
    return forward_rms_norm(x, weight, eps);
  }
  // With s = 1 / sqrt(mean(x^2) + eps), n = x s and g the incoming gradient:
  // dx = s (w g - n mean(w g n)), dw = sum over rows of g n.
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const auto saved = context->get_saved_variables();
    const at::ScalarType wide = saved[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor x = saved[0].to(wide), grad = grads[0].to(wide);
    const at::Tensor scale =
        (x.pow(2).mean(-1, true) + context->saved_data["eps"].toDouble()).rsqrt();
    const at::Tensor normal = x * scale;
    at::Tensor to_x, to_weight;
    if (context->needs_input_grad(0)) {
      const at::Tensor weighted = grad * saved[1].to(wide);
      to_x = scale * (weighted - normal * (weighted * normal).mean(-1, true));
      to_x = to_x.to(saved[0].scalar_type());
    }
    if (context->needs_input_grad(1)) {
      to_weight = (grad * normal).sum(0).to(saved[1].scalar_type());
    }
    return {to_x, to_weight, {}};
  }
};

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
    const at::Tensor sigmoid = at::sigmoid(gate);
    at::Tensor to_gate, to_up;
    if (context->needs_input_grad(0)) {
      to_gate = grads[0] * saved[1] * (sigmoid * (gate * (1 - sigmoid) + 1));
    }
    if (context->needs_input_grad(1)) to_up = grads[0] * gate * sigmoid;
    return {to_gate, to_up};
  }
};

struct Rope : torch::autograd::Function<Rope> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& cos,
                            const at::Tensor& sin) {
    context->save_for_backward({cos, sin});
    return forward_rope(x, cos, sin);
  }
  // A rotation's transpose is the rotation back.
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const auto saved = context->get_saved_variables();
    return {forward_rope(grads[0], saved[0], saved[1].neg()), {}, {}};
  }
};

struct LogSoftmax : torch::autograd::Function<LogSoftmax> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& logits) {
    at::Tensor out = forward_log_softmax(logits);
    context->save_for_backward({out});
    context->saved_data["dtype"] = static_cast<int64_t>(logits.scalar_type());
    return out;
  }
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const at::Tensor out = context->get_saved_variables()[0];
    const auto dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt());
    return {(grads[0] - out.exp() * grads[0].sum(-1, true)).to(dtype)};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  check_rms_norm(x, weight, eps);
  const bool grad = at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  return grad ? RmsNorm::apply(x, weight, eps) : forward_rms_norm(x, weight, eps);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  check_swiglu(gate, up);
  const bool grad = at::GradMode::is_enabled() && (gate.requires_grad() || up.requires_grad());
  return grad ? Swiglu::apply(gate, up) : forward_swiglu(gate, up);
}

at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  check_rope(x, cos, sin);
  const bool grad = at::GradMode::is_enabled() && x.requires_grad();
  return grad ? Rope::apply(x, cos, sin) : forward_rope(x, cos, sin);
}

at::Tensor log_softmax(const at::Tensor& logits) {
  check_log_softmax(logits);
  const bool grad = at::GradMode::is_enabled() && logits.requires_grad();
  return grad ? LogSoftmax::apply(logits) : forward_log_softmax(logits);
}

}  // namespace praetor::ops
