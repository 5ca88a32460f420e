#include "core/model/ops_reference.h"

#include <ATen/ATen.h>

#include <cmath>

namespace praetor::ops::reference {
namespace {

// float32 for the 16-bit types, the tensor's own type otherwise.
at::ScalarType wide(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// q [m, heads, d] at the last m of the t positions of k, v [t, kv_heads, d].
at::Tensor attend(const at::Tensor& q,
                  const at::Tensor& k,
                  const at::Tensor& v,
                  const AttentionOptions& options) {
  const int64_t m = q.size(0), t = k.size(0), group = q.size(1) / k.size(1);
  const auto heads_first = [&](const at::Tensor& x) {
    return x.transpose(0, 1).to(wide(q)).repeat_interleave(group, 0);
  };
  at::Tensor scores = at::matmul(q.transpose(0, 1).to(wide(q)), heads_first(k).transpose(1, 2));
  scores = options.scale > 0 ? scores * options.scale
                             : scores / std::sqrt(static_cast<double>(q.size(2)));
  if (options.softcap > 0) scores = softcap(scores, options.softcap);
  const at::Tensor ones = at::ones({m, t}, q.options().dtype(at::kBool));
  at::Tensor hidden = ones.triu(t - m + 1);
  if (options.window > 0) hidden = hidden.logical_or(ones.tril(t - m - options.window));
  scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  return at::matmul(scores.softmax(-1), heads_first(v)).transpose(0, 1).to(q.scalar_type());
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor y = at::mm(x, weight.t());
  return bias.defined() ? y + bias : y;
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, double offset) {
  const at::Tensor wide_x = x.to(wide(x));
  const at::Tensor normal = wide_x * (wide_x.pow(2).mean(-1, true) + eps).rsqrt();
  if (offset == 0) return normal.to(x.scalar_type()) * weight;
  // In bfloat16 1 + weight would lose the weight's digits.
  return (normal * (weight.to(wide(x)) + offset)).to(x.scalar_type());
}

at::Tensor layer_norm(const at::Tensor& x,
                      const at::Tensor& weight,
                      const at::Tensor& bias,
                      double eps) {
  return at::layer_norm(x, {x.size(1)}, weight, bias, eps);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return at::silu(gate) * up;
}

at::Tensor gelu(const at::Tensor& x) {
  return at::gelu(x, "tanh");
}

at::Tensor softcap(const at::Tensor& x, double cap) {
  return (x / cap).tanh() * cap;
}

at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = x.size(2) / 2;
  const at::Tensor a = x.narrow(2, 0, half), b = x.narrow(2, half, half);
  const at::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);
  return at::cat({a * c - b * s, b * c + a * s}, 2).to(x.scalar_type());
}

at::Tensor causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const std::vector<int64_t>& offsets,
                            const AttentionOptions& options,
                            const std::vector<int64_t>& prefix) {
  std::vector<at::Tensor> parts;
  const auto of = [&](const at::Tensor& x, size_t i) {
    return x.slice(0, offsets[i], offsets[i + 1]);
  };
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    if (offsets[i] == offsets[i + 1]) continue;
    const auto seen = [&](const at::Tensor& x) {
      if (prefix.empty() || prefix[i] < 0) return of(x, i);
      return at::cat({of(x, static_cast<size_t>(prefix[i])), of(x, i)});
    };
    parts.push_back(attend(of(q, i), seen(k), seen(v), options));
  }
  return parts.empty() ? at::zeros_like(q) : at::cat(parts, 0);
}

at::Tensor cached_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            KvLayer& layer,
                            int64_t block_size,
                            const CachedRows& rows,
                            const AttentionOptions& options) {
  const at::Tensor keys = layer.keys.permute({0, 3, 1, 2});  // as the values
  for (int64_t i = 0; i < q.size(0); ++i) {
    const int64_t position = rows.positions[i];
    const int64_t id = (*rows.tables[rows.sequence[i]])[position / block_size];
    keys[id][position % block_size].copy_(k[i]);
    layer.values[id][position % block_size].copy_(v[i]);
  }
  at::Tensor out = at::empty_like(q);
  for (int64_t i = 0; i < q.size(0); ++i) {
    const int64_t length = rows.positions[i] + 1;
    const auto& table = *rows.tables[rows.sequence[i]];
    const int64_t blocks = (length + block_size - 1) / block_size;
    const at::Tensor index =
        at::tensor(std::vector<int64_t>(table.begin(), table.begin() + blocks), at::kLong)
            .to(keys.device());
    const auto all = [&](const at::Tensor& cache) {
      return cache.index_select(0, index).flatten(0, 1).narrow(0, 0, length);
    };
    out[i].copy_(attend(q.narrow(0, i, 1), all(keys), all(layer.values), options)[0]);
  }
  return out;
}

TokenLogprobs token_logprobs(const at::Tensor& hidden,
                             const LanguageHead& head,
                             const at::Tensor& targets,
                             double temperature,
                             bool with_entropy) {
  at::Tensor logits = at::mm(hidden, head.weight.t()).to(wide(hidden));
  if (head.softcap > 0) logits = softcap(logits, head.softcap);
  const at::Tensor all = reference::log_softmax(logits / temperature);
  TokenLogprobs out;
  out.logprob = all.gather(1, targets.unsqueeze(1)).squeeze(1);
  if (with_entropy) out.entropy = -(all.exp() * all).sum(-1);
  return out;
}

at::Tensor log_softmax(const at::Tensor& logits) {
  return at::log_softmax(logits, -1, wide(logits));
}

}  // namespace praetor::ops::reference
