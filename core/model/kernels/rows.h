#pragma once

#include <ATen/core/Tensor.h>

/// Kernels that treat each row by itself, float32 on CPU. Sums run in 16 lanes (element i in lane i
/// mod 16), then lanes i + 8, + 4, + 2, + 1 are added: the same on every instruction set.
namespace praetor::ops::kernels {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, double offset = 0);
at::Tensor layer_norm(const at::Tensor& x,
                      const at::Tensor& weight,
                      const at::Tensor& bias,
                      double eps);
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);
/// gelu(x), times `up` where that is defined.
at::Tensor gelu(const at::Tensor& x, const at::Tensor& up = {});
at::Tensor softcap(const at::Tensor& x, double cap);
at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
at::Tensor log_softmax(const at::Tensor& logits);

/// To x, and to the weight where `with_weight`: its sum goes by blocks of rows, whatever the
/// threads.
struct NormGradients {
  at::Tensor x, weight;
};
NormGradients rms_norm_backward(const at::Tensor& grad,
                                const at::Tensor& x,
                                const at::Tensor& weight,
                                double eps,
                                double offset,
                                bool with_weight);
/// To gate (of gelu: x) and up, undefined where that is.
struct GatedGradients {
  at::Tensor gate, up;
};
GatedGradients swiglu_backward(const at::Tensor& grad,
                               const at::Tensor& gate,
                               const at::Tensor& up);
GatedGradients gelu_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& up);

/// Per row of logits [n,V]: log-probability of its target, log of the sum of exponentials and,
/// where `entropy` is defined, the entropy in nats; into [n] contiguous float32.
void logprob_rows(const at::Tensor& logits,
                  const at::Tensor& targets,
                  at::Tensor& logprob,
                  at::Tensor& log_sum,
                  at::Tensor& entropy);

}  // namespace praetor::ops::kernels
