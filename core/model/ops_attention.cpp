#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/model/kernels/attention.h"
#include "core/model/kernels/parallel.h"
#include "core/model/ops.h"
#include "core/model/ops_checks.h"
#include "core/model/ops_reference.h"

namespace praetor::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

at::Tensor forward_attention(const at::Tensor& q,
                             const at::Tensor& k,
                             const at::Tensor& v,
                             const std::vector<int64_t>& offsets,
                             const AttentionOptions& options,
                             const std::vector<int64_t>& prefix) {
  if (uses_kernels(q)) return kernels::causal_attention(q, k, v, offsets, options, prefix);
  if (!q.is_cpu()) return reference::chunked_attention(q, k, v, offsets, options, prefix);
  if (!widens(q)) return reference::causal_attention(q, k, v, offsets, options, prefix);
  const auto wide = [](const at::Tensor& x) { return x.to(at::kFloat).contiguous(); };
  return kernels::causal_attention(wide(q), wide(k), wide(v), offsets, options, prefix)
      .to(q.scalar_type());
}

// Gradients of one sequence for `kv` neighbouring KV heads, probabilities recomputed. q, out, grad
// [T, kv*group, d] are the last T of the S positions of k, v [S, kv, d]; results in the same
// shapes.
void sequence_backward(const at::Tensor& q,
                       const at::Tensor& k,
                       const at::Tensor& v,
                       const at::Tensor& out,
                       const at::Tensor& grad,
                       const AttentionOptions& options,
                       at::Tensor to_q,
                       at::Tensor to_k,
                       at::Tensor to_v) {
  const int64_t t = q.size(0), s = k.size(0), d = q.size(2), kv = k.size(1);
  const int64_t group = q.size(1) / kv;
  const double scale = options.scale_of(d);
  const double cap = options.softcap;
  const at::ScalarType dtype = q.scalar_type();
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  // Query heads of one KV head side by side: [kv, group * T, d].
  const auto by_kv = [&](const at::Tensor& x) { return reference::by_kv(x.to(wide), kv); };
  const auto from_kv = [&](const at::Tensor& x) { return reference::from_kv(x, t).to(dtype); };
  const auto heads_first = [&](const at::Tensor& x) { return x.to(wide).transpose(0, 1); };
  const at::Tensor qs = by_kv(q), grads = by_kv(grad), outs = by_kv(out);
  const at::Tensor ks = heads_first(k), vs = heads_first(v);
  at::Tensor p = at::bmm(qs, ks.transpose(1, 2)).mul_(scale);
  at::Tensor slope;  // of the capped score by the score, 1 - tanh^2
  if (cap > 0) {
    p.div_(cap).tanh_();
    slope = p.square().neg_().add_(1);
    p.mul_(cap);
  }
  p = p.view({kv, group, t, s});
  p = p.masked_fill_(reference::unseen(t, s, options.window, q),
                     -std::numeric_limits<double>::infinity())
          .softmax(-1);
  p = p.view({kv, group * t, s});
  to_v.copy_(at::bmm(p.transpose(1, 2), grads).transpose(0, 1));
  at::Tensor ds = at::bmm(grads, vs.transpose(1, 2));
  ds.sub_((grads * outs).sum(-1, true)).mul_(p).mul_(scale);
  if (cap > 0) ds.mul_(slope);
  to_q.copy_(from_kv(at::bmm(ds, ks)));
  to_k.copy_(at::bmm(ds.transpose(1, 2), qs).transpose(0, 1));
}

struct CausalAttention : torch::autograd::Function<CausalAttention> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const std::vector<int64_t>& offsets,
                            double scale,
                            double softcap,
                            int64_t window,
                            const std::vector<int64_t>& prefix) {
    at::Tensor out = forward_attention(q, k, v, offsets, {scale, softcap, window}, prefix);
    context->save_for_backward({q, k, v, out});
    context->saved_data["offsets"] = offsets;
    context->saved_data["scale"] = scale;
    context->saved_data["softcap"] = softcap;
    context->saved_data["window"] = window;
    context->saved_data["prefix"] = prefix;
    return out;
  }
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const auto saved = context->get_saved_variables();
    const auto offsets = context->saved_data["offsets"].toIntVector();
    const auto prefix = context->saved_data["prefix"].toIntVector();
    const AttentionOptions options{context->saved_data["scale"].toDouble(),
                                   context->saved_data["softcap"].toDouble(),
                                   context->saved_data["window"].toInt()};
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3];
    if (uses_kernels(q) || widens(q)) {
      const auto wide = [](const at::Tensor& x) { return x.to(at::kFloat); };
      const auto to = kernels::causal_attention_backward(
          wide(q), wide(k), wide(v), wide(grads[0]), offsets, options, prefix);
      const auto narrow = [&](const at::Tensor& x) { return x.to(q.scalar_type()); };
      return {narrow(to.q), narrow(to.k), narrow(to.v), {}, {}, {}, {}, {}};
    }
    at::Tensor to_q = at::empty_like(q, at::MemoryFormat::Contiguous);
    at::Tensor to_k = at::empty_like(k, at::MemoryFormat::Contiguous);
    at::Tensor to_v = at::empty_like(v, at::MemoryFormat::Contiguous);
    const int64_t heads = k.size(1), group = q.size(1) / heads;
    const auto sequences = static_cast<int64_t>(offsets.size()) - 1;
    const auto of = [&](const at::Tensor& x, int64_t i) {
      return x.slice(0, offsets[static_cast<size_t>(i)], offsets[static_cast<size_t>(i) + 1]);
    };
    const auto length = [&](int64_t i) {
      return i < 0 ? 0 : offsets[static_cast<size_t>(i) + 1] - offsets[static_cast<size_t>(i)];
    };
    const auto before = [&](int64_t i) { return prefix.empty() ? -1 : prefix[size_t(i)]; };
    // What a sequence adds to its prefix is kept until all are done, and then added in order.
    std::vector<at::Tensor> prefix_k(static_cast<size_t>(sequences)), prefix_v(prefix_k);
    const auto one = [&](int64_t i) {
      const at::NoGradGuard no_grad;
      const int64_t t = length(i), past = length(before(i));
      if (t == 0) return;
      const auto seen = [&](const at::Tensor& x) {
        return past == 0 ? of(x, i) : at::cat({of(x, before(i)), of(x, i)});
      };
      const at::Tensor keys = seen(k), values = seen(v);
      at::Tensor to_keys = past == 0 ? of(to_k, i) : at::empty_like(keys);
      at::Tensor to_values = past == 0 ? of(to_v, i) : at::empty_like(values);
      // As many heads at a time as keep the probabilities near 64 MiB.
      const int64_t most = (int64_t{1} << 24) / (group * t * (past + t));
      const int64_t step = std::clamp<int64_t>(most, 1, heads);
      for (int64_t h = 0; h < heads; h += step) {
        const int64_t n = std::min(step, heads - h);
        const auto cut_q = [&](const at::Tensor& x) {
          return of(x, i).narrow(1, h * group, n * group);
        };
        const auto cut_k = [&](const at::Tensor& x) { return x.narrow(1, h, n); };
        sequence_backward(cut_q(q),
                          cut_k(keys),
                          cut_k(values),
                          cut_q(out),
                          cut_q(grads[0]),
                          options,
                          cut_q(to_q),
                          cut_k(to_keys),
                          cut_k(to_values));
      }
      if (past == 0) return;
      of(to_k, i).copy_(to_keys.narrow(0, past, t));
      of(to_v, i).copy_(to_values.narrow(0, past, t));
      prefix_k[static_cast<size_t>(i)] = to_keys.narrow(0, 0, past);
      prefix_v[static_cast<size_t>(i)] = to_values.narrow(0, 0, past);
    };
    // Sequences side by side: each writes its own rows, so the thread count is not in the bits.
    int64_t work = 0;
    for (int64_t i = 0; i < sequences; ++i)
      work += 5 * length(i) * (length(before(i)) + length(i)) * q.size(1) * q.size(2);
    // Elsewhere than on the CPU one thread is enough to start the work.
    kernels::run_tasks(q.is_cpu() ? kernels::threads_for(work) : 1, sequences, one);
    const at::NoGradGuard no_grad;
    for (int64_t i = 0; i < sequences; ++i) {
      if (!prefix_k[static_cast<size_t>(i)].defined()) continue;
      of(to_k, before(i)).add_(prefix_k[static_cast<size_t>(i)]);
      of(to_v, before(i)).add_(prefix_v[static_cast<size_t>(i)]);
    }
    return {to_q, to_k, to_v, {}, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const std::vector<int64_t>& offsets,
                            const AttentionOptions& options,
                            const std::vector<int64_t>& prefix) {
  check_causal_attention(q, k, v, offsets, options, prefix);
  const bool grad =
      at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
  if (!grad) return forward_attention(q, k, v, offsets, options, prefix);
  return CausalAttention::apply(
      q, k, v, offsets, options.scale, options.softcap, options.window, prefix);
}

at::Tensor cached_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            KvLayer& layer,
                            int64_t block_size,
                            const CachedRows& rows,
                            const AttentionOptions& options) {
  check_cached_attention(q, k, v, layer, block_size, rows, options);
  at::NoGradGuard no_grad;
  return uses_kernels(q) ? kernels::cached_attention(q, k, v, layer, block_size, rows, options)
                         : reference::cached_attention(q, k, v, layer, block_size, rows, options);
}

}  // namespace praetor::ops
