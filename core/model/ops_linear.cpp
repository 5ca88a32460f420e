#include <ATen/core/grad_mode.h>
#include <ATen/ops/embedding_dense_backward.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "core/model/kernels/linear.h"
#include "core/model/ops.h"
#include "core/model/ops_checks.h"
#include "core/model/ops_reference.h"

namespace praetor::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

at::Tensor forward_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (uses_kernels(x)) return kernels::linear(x, weight, bias);
  if (!widens(x)) return reference::linear(x, weight, bias);
  const at::Tensor wide_bias = bias.defined() ? bias.to(at::kFloat) : bias;
  return kernels::linear(x.to(at::kFloat), weight, wide_bias).to(x.scalar_type());
}

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    // Only the weight's gradient needs the rows: of a frozen one none are kept.
    context->save_for_backward({weight.requires_grad() ? x : at::Tensor(), weight});
    context->saved_data["bias"] = bias.has_value();
    return forward_linear(x, weight, bias.value_or(at::Tensor()));
  }
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor grad = grads[0];
    at::Tensor to_x, to_weight, to_bias;
    if (context->needs_input_grad(0)) to_x = at::mm(grad, saved[1]);
    if (context->needs_input_grad(1)) to_weight = at::mm(grad.t(), saved[0]);
    const bool bias = context->saved_data["bias"].toBool() && context->needs_input_grad(2);
    if (bias) to_bias = grad.sum(0);
    return {to_x, to_weight, to_bias};
  }
};

struct Embedding : torch::autograd::Function<Embedding> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& table,
                            const at::Tensor& ids) {
    context->save_for_backward({ids});
    context->saved_data["rows"] = table.size(0);
    return at::index_select(table, 0, ids);
  }
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    // On CPU each thread owns a range of table rows and adds in row order: repeats bitwise. In
    // float32, as a token that comes often has many to add.
    const at::ScalarType type = grads[0].scalar_type();
    const at::Tensor grad = widens(grads[0]) ? grads[0].to(at::kFloat) : grads[0];
    return {at::embedding_dense_backward(grad.contiguous(),
                                         context->get_saved_variables()[0],
                                         context->saved_data["rows"].toInt(),
                                         -1,
                                         false)
                .to(type),
            {}};
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  check_linear(x, weight, bias);
  const bool grad = at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad() ||
                                                   (bias.defined() && bias.requires_grad()));
  if (!grad) return forward_linear(x, weight, bias);
  return Linear::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

at::Tensor embedding(const at::Tensor& table, const at::Tensor& ids) {
  check_embedding(table, ids);
  if (at::GradMode::is_enabled() && table.requires_grad()) return Embedding::apply(table, ids);
  return at::index_select(table, 0, ids);
}

}  // namespace praetor::ops
