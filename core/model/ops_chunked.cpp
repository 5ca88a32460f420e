// Attention by LibTorch's operators in memory that does not grow with the square of a sequence.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>

#include "core/model/ops_reference.h"

namespace praetor::ops::reference {
namespace {

/// q [m, n * group, d] at the last m of the s positions of k, v [s, n, d].
at::Tensor attend(const at::Tensor& q,
                  const at::Tensor& k,
                  const at::Tensor& v,
                  const AttentionOptions& options) {
  const at::ScalarType wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t m = q.size(0), s = k.size(0), n = k.size(1), d = q.size(2);
  const int64_t group = q.size(1) / n;
  const double scale = options.scale_of(d);
  const auto heads_first = [&](const at::Tensor& x) { return x.to(wide).transpose(0, 1); };
  at::Tensor p = at::bmm(by_kv(q.to(wide), n), heads_first(k).transpose(1, 2)).mul_(scale);
  if (options.softcap > 0) p.div_(options.softcap).tanh_().mul_(options.softcap);
  p = p.view({n, group, m, s})
          .masked_fill_(unseen(m, s, options.window, q), -std::numeric_limits<double>::infinity())
          .softmax(-1)
          .view({n, group * m, s});
  return from_kv(at::bmm(p, heads_first(v)), m);
}

}  // namespace

at::Tensor unseen(int64_t t, int64_t s, int64_t window, const at::Tensor& like) {
  const at::Tensor ones = at::ones({t, s}, like.options().dtype(at::kBool));
  const at::Tensor future = ones.triu(s - t + 1);
  return window > 0 && window < s ? future.logical_or_(ones.tril(s - t - window)) : future;
}

at::Tensor by_kv(const at::Tensor& x, int64_t n) {
  const int64_t t = x.size(0), group = x.size(1) / n, d = x.size(2);
  return x.reshape({t, n, group, d}).permute({1, 2, 0, 3}).reshape({n, group * t, d});
}

at::Tensor from_kv(const at::Tensor& x, int64_t t) {
  const int64_t n = x.size(0), group = x.size(1) / t, d = x.size(2);
  return x.reshape({n, group, t, d}).permute({2, 0, 1, 3}).reshape({t, n * group, d});
}

at::Tensor chunked_attention(const at::Tensor& q,
                             const at::Tensor& k,
                             const at::Tensor& v,
                             const std::vector<int64_t>& offsets,
                             const AttentionOptions& options,
                             const std::vector<int64_t>& prefix,
                             int64_t most_scores) {
  const at::NoGradGuard no_grad;
  at::Tensor out = at::empty_like(q, at::MemoryFormat::Contiguous);
  const int64_t heads = k.size(1), group = q.size(1) / heads;
  const auto of = [&](const at::Tensor& x, size_t i) {
    return x.slice(0, offsets[i], offsets[i + 1]);
  };
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    const int64_t t = offsets[i + 1] - offsets[i];
    if (t == 0) continue;
    const bool goes_on = !prefix.empty() && prefix[i] >= 0;
    const auto seen = [&](const at::Tensor& x) {
      return goes_on ? at::cat({of(x, static_cast<size_t>(prefix[i])), of(x, i)}) : of(x, i);
    };
    const at::Tensor keys = seen(k), values = seen(v);
    const int64_t past = keys.size(0) - t;
    const int64_t rows = std::clamp<int64_t>(most_scores / (group * keys.size(0)), 1, t);
    const int64_t step = std::clamp<int64_t>(most_scores / (group * rows * keys.size(0)), 1, heads);
    for (int64_t h = 0; h < heads; h += step) {
      const int64_t n = std::min(step, heads - h);
      const auto cut_q = [&](const at::Tensor& x, int64_t first, int64_t count) {
        return of(x, i).slice(0, first, first + count).narrow(1, h * group, n * group);
      };
      for (int64_t r = 0; r < t; r += rows) {
        const int64_t count = std::min(rows, t - r);
        // Later keys are seen by none of these rows.
        const auto cut_k = [&](const at::Tensor& x) {
          return x.slice(0, 0, past + r + count).narrow(1, h, n);
        };
        cut_q(out, r, count).copy_(attend(cut_q(q, r, count), cut_k(keys), cut_k(values), options));
      }
    }
  }
  return out;
}

}  // namespace praetor::ops::reference
