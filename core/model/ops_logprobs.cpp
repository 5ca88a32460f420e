#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "core/model/kernels/linear.h"
#include "core/model/kernels/rows.h"
#include "core/model/ops.h"
#include "core/model/ops_checks.h"
#include "core/model/ops_reference.h"
#include "core/model/tensor_group.h"

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

// Targets among the rows of a part of a head: where each is, and whether it is there at all.
struct OwnTargets {
  at::Tensor row;     // [R] int64; 0 for those of other ranks
  at::Tensor others;  // [R] bool; undefined: the head is whole
};

OwnTargets own_targets(const at::Tensor& targets, bool split, int64_t first, int64_t rows) {
  if (!split) return {targets, {}};
  const at::Tensor row = targets - first;
  const at::Tensor others = row.lt(0).logical_or_(row.ge(rows));
  return {row.masked_fill(others, 0), others};
}

// What holds over the whole vocabulary, from what each rank says of its part. With l_t the log of
// rank t's sum of exponentials, w_t = exp(l_t - l) its share and H_t the entropy within its part:
// l = log sum_t exp(l_t), H = sum_t w_t (H_t + l - l_t).
void join_parts(const TensorGroup& group, const at::Tensor& target_logit, Stats& stats) {
  tensor_list mine{stats.log_sum, target_logit};
  if (stats.entropy.defined()) mine.push_back(stats.entropy);
  const at::Tensor all = group.all(at::stack(mine));
  at::Tensor most = all[0][0], sum = at::zeros_like(most), logit = at::zeros_like(most);
  for (int64_t t = 1; t < group.size(); ++t) most = at::maximum(most, all[t][0]);
  for (int64_t t = 0; t < group.size(); ++t) {
    sum.add_((all[t][0] - most).exp_());
    logit.add_(all[t][1]);
  }
  const at::Tensor rest = sum.log_();
  stats.log_sum = most + rest;
  stats.logprob = (logit - most).sub_(rest);
  if (!stats.entropy.defined()) return;
  stats.entropy = at::zeros_like(most);
  for (int64_t t = 0; t < group.size(); ++t) {
    const at::Tensor below = stats.log_sum - all[t][0];
    stats.entropy.add_(below.neg().exp_().mul_(all[t][2] + below));
  }
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
  const OwnTargets own = own_targets(targets, head.group, head.first, head.weight.size(0));
  const at::Tensor target_logit = head.group ? at::empty({rows}, options) : at::Tensor();
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t n = std::min(chunk, rows - begin);
    const at::Tensor logits = tempered(hidden.narrow(0, begin, n), head, temperature);
    const at::Tensor target = own.row.narrow(0, begin, n);
    if (head.group) {
      target_logit.narrow(0, begin, n).copy_(logits.gather(1, target.unsqueeze(1)).squeeze(1));
    }
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
  if (head.group) join_parts(*head.group, target_logit.masked_fill(own.others, 0), out);
  return out;
}

struct Logprobs : torch::autograd::Function<Logprobs> {
  // `weight` is that of `head`, seen by autograd.
  static tensor_list forward(AutogradContext* context,
                             const at::Tensor& hidden,
                             const at::Tensor& weight,
                             const LanguageHead& head,
                             const at::Tensor& targets,
                             double temperature,
                             bool with_entropy) {
    Stats stats = compute(hidden, head, targets, temperature, with_entropy);
    tensor_list saved{hidden, weight, targets, stats.log_sum};
    if (with_entropy) saved.push_back(stats.entropy);
    context->save_for_backward(saved);
    context->saved_data["temperature"] = temperature;
    context->saved_data["softcap"] = head.softcap;
    context->saved_data["group"] = reinterpret_cast<int64_t>(head.group);
    context->saved_data["first"] = head.first;
    if (with_entropy) return {stats.logprob, stats.entropy};
    return {stats.logprob};
  }

  // For z = softcap(logits) / temperature, p = softmax(z), l = log p, H the entropy, a and b the
  // gradients to l[target] and H: dz = a (onehot(target) - p) - b p (l + H). A cap c turns the
  // gradient to its result y into that times 1 - (y / c)^2. Of a split head each rank has its
  // columns of dz, and the gradient to `hidden` is a sum over the ranks.
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &hidden = saved[0], &head = saved[1], &targets = saved[2];
    const double temperature = context->saved_data["temperature"].toDouble();
    const double softcap = context->saved_data["softcap"].toDouble();
    const auto* const group =
        reinterpret_cast<const TensorGroup*>(context->saved_data["group"].toInt());
    const OwnTargets own =
        own_targets(targets, group, context->saved_data["first"].toInt(), head.size(0));
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
      const at::Tensor target = own.row.narrow(0, begin, n).unsqueeze(1);
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
      dz.scatter_add_(
          1,
          target,
          group ? a.masked_fill(own.others.narrow(0, begin, n).unsqueeze(1), 0) : a.contiguous());
      dz.div_(temperature);
      if (slope.defined()) dz.mul_(slope);
      if (to_hidden.defined()) {
        to_hidden.narrow(0, begin, n).copy_(at::mm(dz.to(head.scalar_type()), head));
      }
      if (to_head.defined()) to_head.addmm_(dz.t(), part.to(dz.scalar_type()));
    }
    if (group && to_hidden.defined()) group->add_up(to_hidden);
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
    const auto out = Logprobs::apply(hidden, head.weight, head, targets, temperature, with_entropy);
    return {out[0], with_entropy ? out[1] : at::Tensor()};
  }
  Stats stats = compute(hidden, head, targets, temperature, with_entropy);
  return {stats.logprob, stats.entropy};
}

}  // namespace praetor::ops
