#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/model/ops.h"
#include "core/model/packed.h"

/// The ops of ops.h written plainly with LibTorch's operators: the path of every dtype and device
/// but float32 on CPU, and the second, naive implementation that tests hold the kernels against.
/// Differentiable by LibTorch's autograd. Arguments have been checked by the caller.
namespace praetor::ops::reference {

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, double offset = 0);
at::Tensor layer_norm(const at::Tensor& x,
                      const at::Tensor& weight,
                      const at::Tensor& bias,
                      double eps);
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);
at::Tensor gelu(const at::Tensor& x);
at::Tensor softcap(const at::Tensor& x, double cap);
at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
at::Tensor causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const std::vector<int64_t>& offsets,
                            const AttentionOptions& options = {},
                            const std::vector<int64_t>& prefix = {});
/// The same without autograd, by some heads and rows at a time, so that at most `most_scores`
/// scores are there at once, or those of a row: what other devices than the CPU run.
at::Tensor chunked_attention(const at::Tensor& q,
                             const at::Tensor& k,
                             const at::Tensor& v,
                             const std::vector<int64_t>& offsets,
                             const AttentionOptions& options = {},
                             const std::vector<int64_t>& prefix = {},
                             int64_t most_scores = int64_t{1} << 24);
/// What attention by LibTorch's operators has in common, forward and backward. The keys that a
/// query does not see, later ones and, with a window, those before it: [t,s] bool, the queries at
/// the last t of s positions.
at::Tensor unseen(int64_t t, int64_t s, int64_t window, const at::Tensor& like);
/// Rows [t, n * group, d] of n KV heads with the query heads of one side by side, [n, group * t,
/// d], and the way back.
at::Tensor by_kv(const at::Tensor& x, int64_t n);
at::Tensor from_kv(const at::Tensor& x, int64_t t);

at::Tensor cached_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            KvLayer& layer,
                            int64_t block_size,
                            const CachedRows& rows,
                            const AttentionOptions& options = {});
/// Holds [R,V].
TokenLogprobs token_logprobs(const at::Tensor& hidden,
                             const LanguageHead& head,
                             const at::Tensor& targets,
                             double temperature,
                             bool with_entropy);
at::Tensor log_softmax(const at::Tensor& logits);

}  // namespace praetor::ops::reference
