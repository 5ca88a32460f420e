#include "core/model/kernels/rows.h"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "core/model/kernels/isa.h"
#include "core/model/kernels/parallel.h"

namespace praetor::ops::kernels {
namespace {

constexpr int64_t kExpWork =
    2;  // multiply-adds (16 at a time) that one exponential is worth, roughly, over 8

at::Tensor like(const at::Tensor& x) {
  return at::empty(x.sizes(), x.options().requires_grad(false));
}

float log_of(float sum) {
  return static_cast<float>(std::log(static_cast<double>(sum)));
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, double offset) {
  const at::Tensor in = x.contiguous();
  const at::Tensor scale = offset == 0 ? weight.contiguous() : at::add(weight, offset).contiguous();
  at::Tensor out = like(x);
  const int64_t n = x.size(1);
  const float *from = in.const_data_ptr<float>(), *w = scale.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  const Table& loops = table();
  over_rows(x.size(0), 8 * n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      loops.rms_norm(from + r * n, w, static_cast<float>(eps), n, to + r * n);
    }
  });
  return out;
}

at::Tensor layer_norm(const at::Tensor& x,
                      const at::Tensor& weight,
                      const at::Tensor& bias,
                      double eps) {
  const at::Tensor in = x.contiguous(), scale = weight.contiguous(), shift = bias.contiguous();
  at::Tensor out = like(x);
  const int64_t n = x.size(1);
  const float *from = in.const_data_ptr<float>(), *w = scale.const_data_ptr<float>();
  const float* b = shift.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  const Table& loops = table();
  over_rows(x.size(0), 8 * n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      loops.layer_norm(from + r * n, w, b, static_cast<float>(eps), n, to + r * n);
    }
  });
  return out;
}

at::Tensor gelu(const at::Tensor& x, const at::Tensor& up) {
  const at::Tensor in = x.contiguous(), u = up.defined() ? up.contiguous() : at::Tensor();
  at::Tensor out = like(x);
  const int64_t n = x.size(1);
  const float* from = in.const_data_ptr<float>();
  const float* times = u.defined() ? u.const_data_ptr<float>() : nullptr;
  float* to = out.mutable_data_ptr<float>();
  const Table& loops = table();
  over_rows(x.size(0), 8 * kExpWork * n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      loops.gelu(from + r * n, times ? times + r * n : nullptr, n, to + r * n);
  });
  return out;
}

at::Tensor softcap(const at::Tensor& x, double cap) {
  const at::Tensor in = x.contiguous();
  at::Tensor out = like(x);
  const int64_t n = x.size(1);
  const float* from = in.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  const Table& loops = table();
  over_rows(x.size(0), 8 * kExpWork * n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      loops.softcap(from + r * n, static_cast<float>(cap), n, to + r * n);
  });
  return out;
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  const at::Tensor g = gate.contiguous(), u = up.contiguous();
  at::Tensor out = like(gate);
  const int64_t n = gate.size(1);
  const float *a = g.const_data_ptr<float>(), *b = u.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  const Table& loops = table();
  over_rows(gate.size(0), 8 * kExpWork * n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) loops.swiglu(a + r * n, b + r * n, n, to + r * n);
  });
  return out;
}

NormGradients rms_norm_backward(const at::Tensor& grad,
                                const at::Tensor& x,
                                const at::Tensor& weight,
                                double eps,
                                double offset,
                                bool with_weight) {
  constexpr int64_t kBlock = 32;  // rows
  const at::Tensor g = grad.contiguous(), in = x.contiguous();
  const at::Tensor scale = offset == 0 ? weight.contiguous() : at::add(weight, offset).contiguous();
  NormGradients out{like(x), {}};
  const int64_t rows = x.size(0), n = x.size(1), blocks = (rows + kBlock - 1) / kBlock;
  const at::Tensor parts =
      with_weight ? at::zeros({blocks, n}, weight.options().requires_grad(false)) : at::Tensor();
  const float *y = g.const_data_ptr<float>(), *from = in.const_data_ptr<float>();
  const float* w = scale.const_data_ptr<float>();
  float* to = out.x.mutable_data_ptr<float>();
  float* sums = with_weight ? parts.mutable_data_ptr<float>() : nullptr;
  const Table& loops = table();
  run_tasks(threads_for(16 * rows * n), blocks, [&](int64_t block) {
    for (int64_t r = block * kBlock; r < std::min((block + 1) * kBlock, rows); ++r) {
      loops.rms_norm_backward(y + r * n,
                              from + r * n,
                              w,
                              static_cast<float>(eps),
                              n,
                              to + r * n,
                              sums ? sums + block * n : nullptr);
    }
  });
  if (with_weight) out.weight = parts.sum(0);
  return out;
}

GatedGradients swiglu_backward(const at::Tensor& grad,
                               const at::Tensor& gate,
                               const at::Tensor& up) {
  const at::Tensor y = grad.contiguous(), g = gate.contiguous(), u = up.contiguous();
  GatedGradients out{like(gate), like(up)};
  const int64_t n = gate.size(1);
  const float *from = y.const_data_ptr<float>(), *a = g.const_data_ptr<float>();
  const float* b = u.const_data_ptr<float>();
  float *to_a = out.gate.mutable_data_ptr<float>(), *to_b = out.up.mutable_data_ptr<float>();
  const Table& loops = table();
  over_rows(gate.size(0), 8 * kExpWork * n, [&](int64_t begin, int64_t end) {
    const int64_t at = begin * n;
    loops.swiglu_backward(from + at, a + at, b + at, (end - begin) * n, to_a + at, to_b + at);
  });
  return out;
}

GatedGradients gelu_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& up) {
  const at::Tensor y = grad.contiguous(), in = x.contiguous();
  const at::Tensor u = up.defined() ? up.contiguous() : at::Tensor();
  GatedGradients out{like(x), u.defined() ? like(u) : at::Tensor()};
  const int64_t n = x.size(1);
  const float *from = y.const_data_ptr<float>(), *a = in.const_data_ptr<float>();
  const float* b = u.defined() ? u.const_data_ptr<float>() : nullptr;
  float* to_a = out.gate.mutable_data_ptr<float>();
  float* to_b = b ? out.up.mutable_data_ptr<float>() : nullptr;
  const Table& loops = table();
  over_rows(x.size(0), 8 * kExpWork * n, [&](int64_t begin, int64_t end) {
    const int64_t at = begin * n, count = (end - begin) * n;
    loops.gelu_backward(
        from + at, a + at, b ? b + at : nullptr, count, to_a + at, b ? to_b + at : nullptr);
  });
  return out;
}

at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const at::Tensor in = x.contiguous(), c = cos.contiguous(), s = sin.contiguous();
  at::Tensor out = like(x);
  const int64_t heads = x.size(1), half = x.size(2) / 2;
  const float* from = in.const_data_ptr<float>();
  const float *c0 = c.const_data_ptr<float>(), *s0 = s.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  const Table& loops = table();
  over_rows(x.size(0), 16 * heads * half, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t at = (r * heads + h) * 2 * half;
        loops.rope(from + at, c0 + r * half, s0 + r * half, half, to + at);
      }
    }
  });
  return out;
}

at::Tensor log_softmax(const at::Tensor& logits) {
  const at::Tensor in = logits.contiguous();
  at::Tensor out = like(logits);
  const int64_t n = logits.size(1);
  const float* from = in.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  const Table& loops = table();
  over_rows(logits.size(0), 8 * kExpWork * n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float max = 0, sum = 0;
      loops.log_sum(from + r * n, n, &max, &sum, nullptr);
      const float log_sum = log_of(sum);
      for (int64_t i = 0; i < n; ++i) to[r * n + i] = (from[r * n + i] - max) - log_sum;
    }
  });
  return out;
}

void logprob_rows(const at::Tensor& logits,
                  const at::Tensor& targets,
                  at::Tensor& logprob,
                  at::Tensor& log_sum,
                  at::Tensor& entropy) {
  const at::Tensor in = logits.contiguous(), wanted = targets.contiguous();
  const int64_t n = logits.size(1);
  const float* from = in.const_data_ptr<float>();
  const int64_t* target = wanted.const_data_ptr<int64_t>();
  float *to = logprob.mutable_data_ptr<float>(), *sums = log_sum.mutable_data_ptr<float>();
  float* entropies = entropy.defined() ? entropy.mutable_data_ptr<float>() : nullptr;
  const Table& loops = table();
  over_rows(logits.size(0), 8 * kExpWork * n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float max = 0, sum = 0, moment = 0;
      loops.log_sum(from + r * n, n, &max, &sum, entropies ? &moment : nullptr);
      sums[r] = max + log_of(sum);
      // The maximum first: a likely token keeps all its digits.
      to[r] = (from[r * n + target[r]] - max) - log_of(sum);
      // H = log S - sum e^(z - max) (z - max) / S
      if (entropies) entropies[r] = log_of(sum) - moment / sum;
    }
  });
}

}  // namespace praetor::ops::kernels
