#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/model/ops.h"
#include "core/model/packed.h"

/// What every op asks of its arguments before either path runs. All throw ShapeError (sizes,
/// dtypes, devices) or InvalidArgument (values: a token id outside the table), naming the op, the
/// argument, what it is and what would fit.
namespace praetor::ops {

/// "float32 [3, 4] on cpu".
std::string describe(const at::Tensor& x);

void check_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
void check_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
void check_layer_norm(const at::Tensor& x,
                      const at::Tensor& weight,
                      const at::Tensor& bias,
                      double eps);
/// Two tensors of one shape, for swiglu and geglu.
void check_gated(const char* op, const at::Tensor& gate, const at::Tensor& up);
void check_gelu(const at::Tensor& x);
void check_softcap(const at::Tensor& x, double cap);
void check_rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
/// `ids` [M] int64 within 0..rows-1 (values are looked at on CPU alone).
void check_ids(const char* op, const char* name, const at::Tensor& ids, int64_t rows);
void check_embedding(const at::Tensor& table, const at::Tensor& ids);
void check_causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const std::vector<int64_t>& offsets,
                            const AttentionOptions& options,
                            const std::vector<int64_t>& prefix);
void check_cached_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const KvLayer& layer,
                            int64_t block_size,
                            const CachedRows& rows,
                            const AttentionOptions& options);
/// `count` rows, each with the `block_size`-token blocks of its sequence up to its position, among
/// the `blocks` that there are.
void check_cached_rows(const CachedRows& rows, int64_t count, int64_t block_size, int64_t blocks);
void check_token_logprobs(const at::Tensor& hidden,
                          const LanguageHead& head,
                          const at::Tensor& targets,
                          double temperature);
void check_log_softmax(const at::Tensor& logits);

/// True when our kernels compute on this tensor: float32 on CPU.
bool uses_kernels(const at::Tensor& x);
/// bfloat16 on the CPU: products and attention are the float32 kernels' on widened rows, rounded
/// once at the end, so that a row's bits do not depend on its neighbours there either.
bool widens(const at::Tensor& x);

/// Tokens of each sequence of a step: as it says, or up to the sequence's last row.
std::vector<int64_t> cached_lengths(const CachedRows& rows);

}  // namespace praetor::ops
