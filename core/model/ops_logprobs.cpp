#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "core/model/kernels/linear.h"
#include "core/model/kernels/rows.h"
#include "core/model/ops.h"
#include "core/model/ops_checks.h"
#include "core/model/ops_reference.h"

namespace praetor::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// Rows whose logits are held at once: near 64 MiB, at most 256. Rows are independent, so the cut
// moves no bit of the forward; the backward adds chunks in order, and the cut is a function of V
// alone.
int64_t chunk_rows(int64_t vocab) {
  return std::clamp<int64_t>((int64_t{1} << 24) / std::max<int64_t>(vocab, 1), 16, 256);
}

struct Stats {
  at::Tensor logprob, entropy, log_sum;  // [R] each; log_sum = logsumexp of the tempered logits
};

at::ScalarType wide(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Logits of some rows, capped where the head says so, [n,V], in float32 (float64).
at::Tensor capped(const at::Tensor& hidden, const LanguageHead& head) {
  if (!uses_kernels(hidden) && !widens(hidden)) {
    const at::Tensor logits = reference::linear(hidden, head.weight, {}).to(wide(hidden));
    return head.softcap > 0 ? reference::softcap(logits, head.softcap) : logits;
  }
  const at::Tensor logits = kernels::linear(hidden.to(at::kFloat), head.weight, {});
  return head.softcap > 0 ? kernels::softcap(logits, head.softcap) : logits;
}

// The same divided by the temperature.
at::Tensor tempered(const at::Tensor& hidden, const LanguageHead& head, double temperature) {
  at::Tensor logits = capped(hidden, head);
  return temperature == 1.0 ? logits : logits.div_(temperature);
}

Stats compute(const at::Tensor& hidden,
              const LanguageHead& head,
              const at::Tensor& targets,
              double temperature,
              bool with_entropy) {
  const int64_t rows = hidden.size(0), chunk = chunk_rows(head.weight.size(0));
  const auto options = hidden.options().dtype(wide(hidden)).requires_grad(false);
  Stats out{at::empty({rows}, options), {}, at::empty({rows}, options)};
  if (with_entropy) out.entropy = at::empty({rows}, options);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t n = std::min(chunk, rows - begin);
    const at::Tensor logits = tempered(hidden.narrow(0, begin, n), head, temperature);
    const at::Tensor target = targets.narrow(0, begin, n);
    at::Tensor logprob = out.logprob.narrow(0, begin, n);
    at::Tensor log_sum = out.log_sum.narrow(0, begin, n);
    at::Tensor entropy = with_entropy ? out.entropy.narrow(0, begin, n) : at::Tensor();
    if (uses_kernels(logits)) {
      kernels::logprob_rows(logits, target, logprob, log_sum, entropy);
      continue;
    }
    log_sum.copy_(logits.logsumexp(-1));
    const at::Tensor all = logits - log_sum.unsqueeze(1);
    logprob.copy_(all.gather(1, target.unsqueeze(1)).squeeze(1));
    if (with_entropy) entropy.copy_(-(all.exp() * all).sum(-1));
  }
  return out;
}

struct Logprobs : torch::autograd::Function<Logprobs> {
  static tensor_list forward(AutogradContext* context,
                             const at::Tensor& hidden,
                             const at::Tensor& head,
                             double softcap,
                             const at::Tensor& targets,
                             double temperature,
                             bool with_entropy) {
    Stats stats = compute(hidden, {head, softcap}, targets, temperature, with_entropy);
    tensor_list saved{hidden, head, targets, stats.log_sum};
    if (with_entropy) saved.push_back(stats.entropy);
    context->save_for_backward(saved);
    context->saved_data["temperature"] = temperature;
    context->saved_data["softcap"] = softcap;
    if (with_entropy) return {stats.logprob, stats.entropy};
    return {stats.logprob};
  }

  // For z = softcap(logits) / temperature, p = softmax(z), l = log p, H the entropy, a and b the
  // gradients to l[target] and H: dz = a (onehot(target) - p) - b p (l + H). A cap c turns the
  // gradient to its result y into that times 1 - (y / c)^2.
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &hidden = saved[0], &head = saved[1], &targets = saved[2];
    const double temperature = context->saved_data["temperature"].toDouble();
    const double softcap = context->saved_data["softcap"].toDouble();
    const bool entropy = grads.size() > 1 && grads[1].defined();
    const int64_t rows = hidden.size(0), chunk = chunk_rows(head.size(0));
    at::Tensor to_hidden, to_head;
    if (context->needs_input_grad(0))
      to_hidden = at::empty_like(hidden, at::MemoryFormat::Contiguous);
    if (context->needs_input_grad(1)) {
      to_head = at::zeros(head.sizes(), head.options().dtype(wide(head)).requires_grad(false));
    }
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t n = std::min(chunk, rows - begin);
      const at::Tensor part = hidden.narrow(0, begin, n);
      const at::Tensor target = targets.narrow(0, begin, n).unsqueeze(1);
      at::Tensor log_p = capped(part, {head, softcap});
      at::Tensor slope;
      if (softcap > 0) slope = (log_p / softcap).square_().neg_().add_(1);
      if (temperature != 1.0) log_p.div_(temperature);
      log_p.sub_(saved[3].narrow(0, begin, n).unsqueeze(1));
      at::Tensor dz = log_p.exp();
      const at::Tensor a = grads[0].defined() ? grads[0].narrow(0, begin, n).unsqueeze(1)
                                              : at::zeros({n, 1}, log_p.options());
      if (entropy) {
        const at::Tensor b = grads[1].narrow(0, begin, n).unsqueeze(1);
        log_p.add_(saved[4].narrow(0, begin, n).unsqueeze(1)).mul_(b).add_(a);
        dz.mul_(log_p).neg_();
      } else {
        dz.mul_(a).neg_();
      }
      dz.scatter_add_(1, target, a.contiguous());
      dz.div_(temperature);
      if (slope.defined()) dz.mul_(slope);
      if (to_hidden.defined()) {
        to_hidden.narrow(0, begin, n).copy_(at::mm(dz.to(head.scalar_type()), head));
      }
      if (to_head.defined()) to_head.addmm_(dz.t(), part.to(dz.scalar_type()));
    }
    if (to_head.defined()) to_head = to_head.to(head.scalar_type());
    return {to_hidden, to_head, {}, {}, {}, {}};
  }
};

}  // namespace

TokenLogprobs token_logprobs(const at::Tensor& hidden,
                             const LanguageHead& head,
                             const at::Tensor& targets,
                             double temperature,
                             bool with_entropy) {
  check_token_logprobs(hidden, head, targets, temperature);
  if (at::GradMode::is_enabled() && (hidden.requires_grad() || head.weight.requires_grad())) {
    const auto out =
        Logprobs::apply(hidden, head.weight, head.softcap, targets, temperature, with_entropy);
    return {out[0], with_entropy ? out[1] : at::Tensor()};
  }
  Stats stats = compute(hidden, head, targets, temperature, with_entropy);
  return {stats.logprob, stats.entropy};
}

}  // namespace praetor::ops
