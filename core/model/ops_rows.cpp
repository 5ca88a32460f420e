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

at::Tensor forward_rms_norm(const at::Tensor& x,
                            const at::Tensor& weight,
                            double eps,
                            double offset) {
  return uses_kernels(x) ? kernels::rms_norm(x, weight, eps, offset)
                         : reference::rms_norm(x, weight, eps, offset);
}

at::Tensor forward_layer_norm(const at::Tensor& x,
                              const at::Tensor& weight,
                              const at::Tensor& bias,
                              double eps) {
  return uses_kernels(x) ? kernels::layer_norm(x, weight, bias, eps)
                         : reference::layer_norm(x, weight, bias, eps);
}

at::Tensor forward_rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return uses_kernels(x) && uses_kernels(cos) ? kernels::rope(x, cos, sin)
                                              : reference::rope(x, cos, sin);
}

at::Tensor forward_log_softmax(const at::Tensor& logits) {
  return uses_kernels(logits) ? kernels::log_softmax(logits) : reference::log_softmax(logits);
}

at::ScalarType wide(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// The gradient of x where y = normal * w, normal = x scale has mean square 1 and `weighted` is the
// incoming gradient times w.
at::Tensor through_scale(const at::Tensor& weighted,
                         const at::Tensor& normal,
                         const at::Tensor& scale) {
  return scale * (weighted - normal * (weighted * normal).mean(-1, true));
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& weight,
                            double eps,
                            double offset) {
    context->save_for_backward({x, weight});
    context->saved_data["eps"] = eps;
    context->saved_data["offset"] = offset;
    return forward_rms_norm(x, weight, eps, offset);
  }
  // With s = 1 / sqrt(mean(x^2) + eps), n = x s and g the incoming gradient:
  // dx = s (w g - n mean(w g n)), dw = sum over rows of g n.
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const auto saved = context->get_saved_variables();
    if (uses_kernels(saved[0]) && uses_kernels(saved[1])) {
      auto to = kernels::rms_norm_backward(grads[0],
                                           saved[0],
                                           saved[1],
                                           context->saved_data["eps"].toDouble(),
                                           context->saved_data["offset"].toDouble(),
                                           context->needs_input_grad(1));
      return {to.x, to.weight, {}, {}};
    }
    const at::ScalarType type = wide(saved[0]);
    const at::Tensor x = saved[0].to(type), grad = grads[0].to(type);
    const at::Tensor scale =
        (x.pow(2).mean(-1, true) + context->saved_data["eps"].toDouble()).rsqrt();
    const at::Tensor normal = x * scale;
    const double offset = context->saved_data["offset"].toDouble();
    at::Tensor to_x, to_weight;
    if (context->needs_input_grad(0)) {
      at::Tensor weight = saved[1].to(type);
      if (offset != 0) weight = weight + offset;
      to_x = through_scale(grad * weight, normal, scale).to(saved[0].scalar_type());
    }
    if (context->needs_input_grad(1)) {
      to_weight = (grad * normal).sum(0).to(saved[1].scalar_type());
    }
    return {to_x, to_weight, {}, {}};
  }
};

struct LayerNorm : torch::autograd::Function<LayerNorm> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& weight,
                            const at::Tensor& bias,
                            double eps) {
    context->save_for_backward({x, weight});
    context->saved_data["eps"] = eps;
    return forward_layer_norm(x, weight, bias, eps);
  }
  // As RmsNorm of x less its mean, whose gradient loses its own mean.
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const auto saved = context->get_saved_variables();
    const at::ScalarType type = wide(saved[0]);
    const at::Tensor grad = grads[0].to(type);
    at::Tensor normal = saved[0].to(type);
    normal = normal - normal.mean(-1, true);
    const at::Tensor scale =
        (normal.pow(2).mean(-1, true) + context->saved_data["eps"].toDouble()).rsqrt();
    normal = normal * scale;
    at::Tensor to_x, to_weight, to_bias;
    if (context->needs_input_grad(0)) {
      const at::Tensor centred = through_scale(grad * saved[1].to(type), normal, scale);
      to_x = (centred - centred.mean(-1, true)).to(saved[0].scalar_type());
    }
    if (context->needs_input_grad(1)) {
      to_weight = (grad * normal).sum(0).to(saved[1].scalar_type());
    }
    if (context->needs_input_grad(2)) to_bias = grad.sum(0).to(saved[1].scalar_type());
    return {to_x, to_weight, to_bias, {}};
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

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, double offset) {
  check_rms_norm(x, weight, eps);
  const bool grad = at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  return grad ? RmsNorm::apply(x, weight, eps, offset) : forward_rms_norm(x, weight, eps, offset);
}

at::Tensor layer_norm(const at::Tensor& x,
                      const at::Tensor& weight,
                      const at::Tensor& bias,
                      double eps) {
  check_layer_norm(x, weight, bias, eps);
  const bool grad = at::GradMode::is_enabled() &&
                    (x.requires_grad() || weight.requires_grad() || bias.requires_grad());
  return grad ? LayerNorm::apply(x, weight, bias, eps) : forward_layer_norm(x, weight, bias, eps);
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
