#include <ATen/ATen.h>

#include "core/model/kernels/attention.h"
#include "core/model/kernels/linear.h"
#include "core/model/kernels/rows.h"
#include "core/model/ops_reference.h"

namespace praetor::ops::kernels {

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return reference::linear(x, weight, bias);
}
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return reference::rms_norm(x, weight, eps);
}
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return reference::swiglu(gate, up);
}
at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return reference::rope(x, cos, sin);
}
at::Tensor log_softmax(const at::Tensor& logits) {
  return reference::log_softmax(logits);
}
void logprob_rows(const at::Tensor& logits,
                  const at::Tensor& targets,
                  at::Tensor& logprob,
                  at::Tensor& log_sum,
                  at::Tensor& entropy) {
  log_sum.copy_(logits.logsumexp(-1));
  const at::Tensor all = logits - log_sum.unsqueeze(1);
  logprob.copy_(all.gather(1, targets.unsqueeze(1)).squeeze(1));
  if (entropy.defined()) entropy.copy_(-(all.exp() * all).sum(-1));
}
at::Tensor causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const std::vector<int64_t>& offsets) {
  return reference::causal_attention(q, k, v, offsets);
}
at::Tensor cached_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            KvLayer& layer,
                            int64_t block_size,
                            const CachedRows& rows) {
  return reference::cached_attention(q, k, v, layer, block_size, rows);
}

}  // namespace praetor::ops::kernels
