#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/model/ops.h"

/// Attention, float32 on CPU. Training, prefill and decode share one routine for a query row at
/// position p: scores against keys 0..p (one fused multiply-add chain over head_dim each; with a
/// window the first key is p - window + 1), capped where the options say so, their maximum,
/// exponentials, their sum in 16 lanes by key index, then one chain over the same keys for each
/// element of the result. No step looks at other rows, nor at keys outside the window.
namespace praetor::ops::kernels {

at::Tensor causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const std::vector<int64_t>& offsets,
                            const AttentionOptions& options,
                            const std::vector<int64_t>& prefix);

/// Of causal_attention, from the gradient to its result. Probabilities are computed again,
/// for some queries at a time; the sums over queries go in the order of positions, head by head,
/// whatever the threads. What sequences add to a prefix they share is added in their order.
struct AttentionGradients {
  at::Tensor q, k, v;
};
AttentionGradients causal_attention_backward(const at::Tensor& q,
                                             const at::Tensor& k,
                                             const at::Tensor& v,
                                             const at::Tensor& grad,
                                             const std::vector<int64_t>& offsets,
                                             const AttentionOptions& options,
                                             const std::vector<int64_t>& prefix);

at::Tensor cached_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            KvLayer& layer,
                            int64_t block_size,
                            const CachedRows& rows,
                            const AttentionOptions& options);

/// The same on bare rows, q and `out` [M, heads, head_dim], k and v [M, kv_heads, head_dim], M of
/// `rows`.
void cached_attention(const float* q,
                      const float* k,
                      const float* v,
                      int64_t heads,
                      KvLayer& layer,
                      const CachedRows& rows,
                      const AttentionOptions& options,
                      float* out);

}  // namespace praetor::ops::kernels
