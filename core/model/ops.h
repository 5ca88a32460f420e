#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "core/model/packed.h"

/// The numerics of every forward (policy, reference, critic, reward; training, scoring, decoding).
///
/// float32 on CPU: kernels of ours, in which each output row is one fixed sequence of operations on
/// its own inputs (for a product, one fused multiply-add chain over K in ascending order). A row's
/// bits therefore do not depend on the number of rows, its neighbours, the thread count, the
/// instruction set (AVX2 or AVX-512), on whether keys come from a cache or from the same forward,
/// nor on the cache's block size: decode equals prefill equals training. Other dtypes and devices:
/// LibTorch's operators, without that promise (float64 serves finite differences). Every op
/// supports autograd where an input requires grad; the products of a backward are LibTorch's,
/// which repeat bitwise at fixed threads and order. Tensors that do not fit throw ShapeError, token
/// ids outside the table and a temperature of 0 InvalidArgument. kernels/self_check.h proves the
/// bitwise promise on the machine at hand.
namespace praetor {
class TensorGroup;
}

namespace praetor::ops {

/// x [M,K] times weight [N,K] transposed, plus bias [N] when defined: [M,N].
/// Float32 weights are packed once and kept until the tensor's version counter moves. Who writes a
/// weight's memory behind LibTorch's back (data_ptr, memcpy, a collective) calls
/// weight.unsafeGetTensorImpl()->bump_version().
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

/// x / sqrt(mean(x^2) + eps) * (offset + weight), per row of x [M,H].
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, double offset = 0);

/// (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias, per row of x [M,H].
at::Tensor layer_norm(const at::Tensor& x,
                      const at::Tensor& weight,
                      const at::Tensor& bias,
                      double eps);

/// silu(gate) * up, elementwise, [M,I].
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

/// gelu(x), elementwise, [M,I], by its tanh form (arXiv:1606.08415):
///
///   gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
at::Tensor gelu(const at::Tensor& x);
/// gelu(gate) * up.
at::Tensor geglu(const at::Tensor& gate, const at::Tensor& up);

/// cap tanh(x / cap), elementwise, [M,N]: keeps x within (-cap, cap).
at::Tensor softcap(const at::Tensor& x, double cap);

/// Rotates x [M, heads, head_dim] in half-split form by cos and sin [M, head_dim/2].
at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

/// Rows of `table` [V,H] at `ids` [M] int64.
at::Tensor embedding(const at::Tensor& table, const at::Tensor& ids);

/// What attention does beside softmax(q k / sqrt(head_dim)) v over all earlier positions.
struct AttentionOptions {
  double scale = 0;    ///< of the scores; 0: 1 / sqrt(head_dim)
  double softcap = 0;  ///< scaled scores s become c tanh(s / c) of this c; 0: they do not
  int64_t window = 0;  ///< position p sees p - window + 1 .. p alone; 0: 0 .. p
  double scale_of(int64_t head_dim) const {
    return scale > 0 ? scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
  }
};

/// Causal attention within each sequence of a packed batch (offsets and prefix are those of
/// PackedTokens). q [T, heads, head_dim]; k, v [T, kv_heads, head_dim]; heads a multiple of
/// kv_heads; result [T, heads, head_dim]. A row has the same bits whether the keys before it are
/// its own sequence's or a prefix's.
at::Tensor causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const std::vector<int64_t>& offsets,
                            const AttentionOptions& options = {},
                            const std::vector<int64_t>& prefix = {});

/// Writes k, v [M, kv_heads, head_dim] of the step's rows to their slots, then attends; no
/// autograd. Bitwise equal to causal_attention on the same tokens. float32 on CPU.
at::Tensor cached_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            KvLayer& layer,
                            int64_t block_size,
                            const CachedRows& rows,
                            const AttentionOptions& options = {});

/// A language head: logits = softcap(hidden weight^T). Split over ranks, the weight has one rank's
/// rows, and the ranks together make log-probabilities of it.
struct LanguageHead {
  at::Tensor weight;                   ///< [V,H]
  double softcap = 0;                  ///< 0: none
  const TensorGroup* group = nullptr;  ///< borrowed; null: the weight is whole
  int64_t first = 0;                   ///< with a group: the token of the weight's first row
  int64_t vocabulary = 0;              ///< with a group: tokens of all ranks
  LanguageHead() = default;
  LanguageHead(at::Tensor matrix, double cap = 0) : weight(std::move(matrix)), softcap(cap) {}
};

/// [M,V] from hidden states [M,H], of a whole head.
at::Tensor logits(const at::Tensor& hidden, const LanguageHead& head);

struct TokenLogprobs {
  at::Tensor logprob;  ///< [R] float32 (float64 for float64 input), nats, of `targets` at the given
                       ///< temperature
  at::Tensor entropy;  ///< [R] nats, of the whole distribution; undefined unless asked for
};

/// Log-probabilities of targets [R] int64 from hidden states [R,H] (after the final norm) and the
/// head: logits / temperature, log-softmax in float32. Computed in chunks of rows, forward
/// and backward, so that [R,V] is never held. Of a split head three numbers a row pass between the
/// ranks, which all get the same result; the gradient to `hidden` is summed over them.
TokenLogprobs token_logprobs(const at::Tensor& hidden,
                             const LanguageHead& head,
                             const at::Tensor& targets,
                             double temperature = 1.0,
                             bool with_entropy = false);

/// log-softmax over the last dimension of logits [M,V], float32, row by row in the same order of
/// operations as token_logprobs (so that engine and learner agree bit for bit).
at::Tensor log_softmax(const at::Tensor& logits);

}  // namespace praetor::ops
