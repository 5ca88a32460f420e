#include "core/model/ops_checks.h"

#include <sstream>
#include <string>

#include "core/base/error.h"

namespace praetor::ops {
namespace {

void want(bool ok,
          const char* op,
          const char* rule,
          std::initializer_list<std::pair<const char*, const at::Tensor*>> tensors) {
  if (ok) return;
  std::ostringstream out;
  out << op << ": ";
  const char* between = "";
  for (const auto& [name, tensor] : tensors) {
    out << between << name << " is " << describe(*tensor);
    between = ", ";
  }
  out << "; wanted " << rule;
  throw ShapeError(out.str());
}

bool defined(const at::Tensor& x, int64_t dim) {
  return x.defined() && x.dim() == dim;
}

bool alike(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.device() == b.device();
}

bool floating(const at::Tensor& x) {
  return at::isFloatingType(x.scalar_type());
}

void check_qkv(const char* op, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const bool ok = defined(q, 3) && defined(k, 3) && defined(v, 3) && floating(q) && alike(q, k) &&
                  alike(q, v) && k.sizes() == v.sizes() && q.size(0) == k.size(0) &&
                  q.size(2) == k.size(2) && q.size(2) > 0 && k.size(1) > 0 &&
                  q.size(1) % k.size(1) == 0;
  want(ok,
       op,
       "q [T, heads, head_dim], k and v [T, kv_heads, head_dim], heads a multiple of kv_heads",
       {{"q", &q}, {"k", &k}, {"v", &v}});
}

void check_options(const char* op, const AttentionOptions& options) {
  if (options.scale >= 0 && options.softcap >= 0 && options.window >= 0) return;
  throw InvalidArgument(op,
                        ": scale is ",
                        options.scale,
                        ", softcap ",
                        options.softcap,
                        ", window ",
                        options.window,
                        "; wanted 0 or more of each");
}

}  // namespace

std::string describe(const at::Tensor& x) {
  if (!x.defined()) return "undefined";
  std::ostringstream out;
  out << at::toString(x.scalar_type()) << " " << x.sizes();
  if (!x.device().is_cpu()) out << " on " << x.device();
  return out.str();
}

void check_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const bool ok = defined(x, 2) && defined(weight, 2) && floating(x) && alike(x, weight) &&
                  x.size(1) == weight.size(1);
  want(ok, "linear", "x [M,K] and weight [N,K] of one type", {{"x", &x}, {"weight", &weight}});
  const bool bias_ok =
      !bias.defined() || (bias.dim() == 1 && alike(bias, weight) && bias.size(0) == weight.size(0));
  want(bias_ok, "linear", "bias [N] of the weight's type", {{"weight", &weight}, {"bias", &bias}});
}

void check_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const bool ok = defined(x, 2) && defined(weight, 1) && floating(x) && alike(x, weight) &&
                  x.size(1) == weight.size(0) && x.size(1) > 0;
  want(ok, "rms_norm", "x [M,H] and weight [H] of one type", {{"x", &x}, {"weight", &weight}});
  if (!(eps >= 0)) throw InvalidArgument("rms_norm: eps is ", eps, "; wanted 0 or more");
}

void check_layer_norm(const at::Tensor& x,
                      const at::Tensor& weight,
                      const at::Tensor& bias,
                      double eps) {
  const bool ok = defined(x, 2) && defined(weight, 1) && defined(bias, 1) && floating(x) &&
                  alike(x, weight) && alike(x, bias) && x.size(1) == weight.size(0) &&
                  bias.size(0) == weight.size(0) && x.size(1) > 0;
  want(ok,
       "layer_norm",
       "x [M,H], weight and bias [H] of one type",
       {{"x", &x}, {"weight", &weight}, {"bias", &bias}});
  if (!(eps >= 0)) throw InvalidArgument("layer_norm: eps is ", eps, "; wanted 0 or more");
}

void check_gated(const char* op, const at::Tensor& gate, const at::Tensor& up) {
  const bool ok = defined(gate, 2) && up.defined() && floating(gate) && alike(gate, up) &&
                  gate.sizes() == up.sizes();
  want(ok, op, "two [M,I] of one type", {{"gate", &gate}, {"up", &up}});
}

void check_gelu(const at::Tensor& x) {
  want(defined(x, 2) && floating(x), "gelu", "[M,I]", {{"x", &x}});
}

void check_softcap(const at::Tensor& x, double cap) {
  want(defined(x, 2) && floating(x), "softcap", "[M,N]", {{"x", &x}});
  if (!(cap > 0)) throw InvalidArgument("softcap: cap is ", cap, "; wanted more than 0");
}

void check_rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const bool ok = defined(x, 3) && defined(cos, 2) && defined(sin, 2) && floating(x) &&
                  x.size(2) % 2 == 0 && cos.sizes() == sin.sizes() && alike(cos, sin) &&
                  floating(cos) && cos.device() == x.device() && cos.size(0) == x.size(0) &&
                  cos.size(1) == x.size(2) / 2;
  want(ok,
       "rope",
       "x [M, heads, head_dim] with an even head_dim, cos and sin [M, head_dim/2]",
       {{"x", &x}, {"cos", &cos}, {"sin", &sin}});
}

void check_ids(const char* op, const char* name, const at::Tensor& ids, int64_t rows) {
  want(defined(ids, 1) && ids.scalar_type() == at::kLong, op, "[M] of int64", {{name, &ids}});
  if (!ids.device().is_cpu()) return;
  const at::Tensor flat = ids.contiguous();
  const int64_t* id = flat.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < flat.numel(); ++i) {
    if (id[i] >= 0 && id[i] < rows) continue;
    throw InvalidArgument(
        op, ": ", name, "[", i, "] is ", id[i], "; wanted 0 to ", rows - 1, " (", rows, " tokens)");
  }
}

void check_embedding(const at::Tensor& table, const at::Tensor& ids) {
  want(defined(table, 2) && floating(table), "embedding", "[V,H]", {{"table", &table}});
  check_ids("embedding", "ids", ids, table.size(0));
}

void check_causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const std::vector<int64_t>& offsets,
                            const AttentionOptions& options,
                            const std::vector<int64_t>& prefix) {
  check_qkv("causal_attention", q, k, v);
  check_options("causal_attention", options);
  bool ok = !offsets.empty() && offsets.front() == 0 && offsets.back() == q.size(0);
  for (size_t i = 0; ok && i + 1 < offsets.size(); ++i) ok = offsets[i] <= offsets[i + 1];
  const auto after = [&](size_t i) {  // an earlier sequence that has no prefix
    return prefix[i] < static_cast<int64_t>(i) && prefix[static_cast<size_t>(prefix[i])] < 0;
  };
  for (size_t i = 0; ok && i < prefix.size(); ++i) {
    if (prefix.size() + 1 == offsets.size() && (prefix[i] < 0 || after(i))) continue;
    throw ShapeError("causal_attention: prefix [",
                     prefix.size(),
                     "] of ",
                     offsets.size() - 1,
                     " sequences; that of ",
                     i,
                     " is ",
                     prefix[i],
                     ", wanted an earlier one without a prefix, or -1");
  }
  if (ok) return;
  std::ostringstream out;
  for (size_t i = 0; i < offsets.size() && i < 8; ++i) out << (i ? ", " : "") << offsets[i];
  throw ShapeError("causal_attention: offsets [",
                   out.str(),
                   offsets.size() > 8 ? ", ..." : "",
                   "] do not rise from 0 to ",
                   q.size(0),
                   ", the rows of q");
}

void check_cached_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const KvLayer& layer,
                            int64_t block_size,
                            const CachedRows& rows,
                            const AttentionOptions& options) {
  check_qkv("cached_attention", q, k, v);
  check_options("cached_attention", options);
  const at::Tensor& keys = layer.keys;
  const bool ok =
      defined(keys, 4) && defined(layer.values, 4) && alike(keys, q) && alike(layer.values, q) &&
      keys.is_contiguous() && layer.values.is_contiguous() &&
      keys.size(0) == layer.values.size(0) &&
      keys.sizes().slice(1) == at::IntArrayRef{k.size(1), k.size(2), block_size} &&
      layer.values.sizes().slice(1) == at::IntArrayRef{block_size, k.size(1), k.size(2)};
  want(ok,
       "cached_attention",
       "keys [blocks, kv_heads, head_dim, block_size] and values [blocks, block_size, kv_heads, "
       "head_dim], contiguous, of the type of q",
       {{"keys", &keys}, {"values", &layer.values}, {"k", &k}});
  check_cached_rows(rows, q.size(0), block_size, keys.size(0));
}

void check_cached_rows(const CachedRows& rows, int64_t count, int64_t block_size, int64_t blocks) {
  const auto m = static_cast<size_t>(count);
  if (rows.positions.size() != m || rows.sequence.size() != m) {
    throw ShapeError("cached_attention: q has ",
                     m,
                     " rows, but there are ",
                     rows.positions.size(),
                     " positions and ",
                     rows.sequence.size(),
                     " sequence indices");
  }
  for (size_t i = 0; i < m; ++i) {
    const int32_t sequence = rows.sequence[i], position = rows.positions[i];
    if (sequence < 0 || static_cast<size_t>(sequence) >= rows.tables.size() || position < 0) {
      throw ShapeError("cached_attention: row ",
                       i,
                       " is position ",
                       position,
                       " of sequence ",
                       sequence,
                       "; there are ",
                       rows.tables.size(),
                       " sequences");
    }
    const std::vector<int32_t>& table = *rows.tables[sequence];
    const auto needed = static_cast<size_t>(position / block_size + 1);
    if (table.size() < needed) {
      throw ShapeError("cached_attention: position ",
                       position,
                       " of sequence ",
                       sequence,
                       " needs ",
                       needed,
                       " blocks of ",
                       block_size,
                       " tokens, its table has ",
                       table.size());
    }
    for (size_t b = 0; b < needed; ++b) {
      if (table[b] >= 0 && table[b] < blocks) continue;
      throw ShapeError("cached_attention: block ",
                       b,
                       " of sequence ",
                       sequence,
                       " is ",
                       table[b],
                       "; the cache has ",
                       blocks);
    }
  }
}

void check_token_logprobs(const at::Tensor& hidden,
                          const LanguageHead& language_head,
                          const at::Tensor& targets,
                          double temperature) {
  const at::Tensor& head = language_head.weight;
  const bool ok = defined(hidden, 2) && defined(head, 2) && floating(hidden) &&
                  alike(hidden, head) && hidden.size(1) == head.size(1);
  want(ok,
       "token_logprobs",
       "hidden [R,H] and head [V,H] of one type",
       {{"hidden", &hidden}, {"head", &head}});
  check_ids("token_logprobs",
            "targets",
            targets,
            language_head.group ? language_head.vocabulary : head.size(0));
  want(targets.size(0) == hidden.size(0) && targets.device() == hidden.device(),
       "token_logprobs",
       "one target for each hidden row",
       {{"hidden", &hidden}, {"targets", &targets}});
  if (!(language_head.softcap >= 0)) {
    throw InvalidArgument(
        "token_logprobs: softcap is ", language_head.softcap, "; wanted 0 or more");
  }
  if (!(temperature > 0)) {
    throw InvalidArgument("token_logprobs: temperature is ", temperature, "; wanted more than 0");
  }
}

void check_log_softmax(const at::Tensor& logits) {
  want(defined(logits, 2) && floating(logits), "log_softmax", "[M,V]", {{"logits", &logits}});
}

bool uses_kernels(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat && x.device().is_cpu();
}

bool widens(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 && x.device().is_cpu();
}

std::vector<int64_t> cached_lengths(const CachedRows& rows) {
  if (!rows.lengths.empty()) return rows.lengths;
  std::vector<int64_t> out(rows.tables.size(), 0);
  for (size_t i = 0; i < rows.positions.size(); ++i) {
    int64_t& length = out.at(static_cast<size_t>(rows.sequence[i]));
    length = std::max<int64_t>(length, rows.positions[i] + 1);
  }
  return out;
}

}  // namespace praetor::ops
