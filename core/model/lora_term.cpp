// What an adapter adds to a layer, and its gradients.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/base/error.h"
#include "core/base/random.h"
#include "core/model/kernels/parallel.h"
#include "core/model/lora.h"
#include "core/model/lora_dropout.h"
#include "core/model/ops.h"
#include "core/model/ops_checks.h"
#include "core/model/tensor_split.h"

namespace praetor {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

/// The inputs of one layer that one forward leaves out: enough to find them again.
struct LeftOut {
  at::Tensor rows;  ///< [M], LoraDropout::at_hand; undefined: none
  double rate = 0;
  uint64_t key = 0;
  uint32_t layer = 0;
  int64_t first = 0;  ///< the input of the layer that is the first of x

  bool any() const { return rows.defined(); }
};

/// What the inputs `first` to `first + width` of some rows are multiplied with: 0 for those that
/// are left out, 1 / (1 - rate) for the others. Float32 on the CPU.
at::Tensor mask_of(const LeftOut& out, int64_t begin, int64_t rows, int64_t width) {
  const int64_t first = out.first;
  at::Tensor mask = at::empty({rows, width}, at::dtype(at::kFloat));
  float* const all = mask.mutable_data_ptr<float>();
  const int64_t* const keys = out.rows.const_data_ptr<int64_t>() + begin;
  const std::array<uint32_t, 2> key{static_cast<uint32_t>(out.key),
                                    static_cast<uint32_t>(out.key >> 32)};
  const auto kept = static_cast<float>(1.0 / (1.0 - out.rate));
  const auto least = static_cast<uint64_t>(std::llround(out.rate * 0x1p32));
  ops::kernels::over_rows(rows, 8 * width, [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; ++r) {
      const auto row = static_cast<uint64_t>(keys[r]);
      float* const values = all + r * width;
      for (int64_t i = first - first % 4; i < first + width; i += 4) {
        const auto bits = philox({static_cast<uint32_t>(i / 4),
                                  static_cast<uint32_t>(row),
                                  static_cast<uint32_t>(row >> 32),
                                  out.layer},
                                 key);
        for (int64_t k = std::max(i, first); k < std::min(i + 4, first + width); ++k)
          values[k - first] = bits[static_cast<size_t>(k - i)] >= least ? kept : 0.0f;
      }
    }
  });
  return mask;
}

/// Rows [M,width] in turn, as many at a time as are about 4 MiB on the CPU, 64 MiB elsewhere.
template <typename Work>
void over_blocks(const at::Tensor& like, int64_t rows, int64_t width, const Work& work) {
  const int64_t elements = int64_t{1} << (like.is_cpu() ? 20 : 24);
  const int64_t step = std::max<int64_t>(elements / std::max<int64_t>(width, 1), 16);
  for (int64_t begin = 0; begin < rows; begin += step) work(begin, std::min(step, rows - begin));
}

/// The rows of x from `begin` on as A multiplies them, and `gradient` to them, where it is defined,
/// as the gradient to those of x.
at::Tensor inputs_of(const at::Tensor& x,
                     const LeftOut& out,
                     int64_t begin,
                     int64_t rows,
                     at::ScalarType type,
                     const at::Tensor& gradient = {}) {
  const at::Tensor part = x.narrow(0, begin, rows);
  if (!out.any()) return part.to(type);
  const int64_t width = x.size(1);
  at::Tensor inputs = at::empty({rows, width}, x.options().dtype(type).requires_grad(false));
  over_blocks(x, rows, width, [&](int64_t at, int64_t n) {
    const at::Tensor mask = mask_of(out, begin + at, n, width).to(inputs.options());
    inputs.narrow(0, at, n).copy_(part.narrow(0, at, n)).mul_(mask);
    if (gradient.defined()) gradient.narrow(0, at, n).mul_(mask);
  });
  return inputs;
}

/// scale inputs A^T, [M,r].
at::Tensor low_of(const at::Tensor& x, const at::Tensor& a, const LeftOut& out, double scale) {
  const at::ScalarType type = a.scalar_type();
  if (!out.any() && x.scalar_type() == type) return ops::linear(x, a).mul_(scale);
  at::Tensor low = at::empty({x.size(0), a.size(0)}, a.options().requires_grad(false));
  over_blocks(x, x.size(0), x.size(1), [&](int64_t begin, int64_t rows) {
    low.narrow(0, begin, rows).copy_(ops::linear(inputs_of(x, out, begin, rows, type), a));
  });
  return low.mul_(scale);
}

/// `out` becomes out + low B^T, each sum rounded once.
void add_product(const at::Tensor& out, const at::Tensor& low, const at::Tensor& b) {
  if (!ops::uses_kernels(low) && out.scalar_type() == low.scalar_type()) {
    out.addmm_(low, b.t());
    return;
  }
  over_blocks(out, out.size(0), out.size(1), [&](int64_t begin, int64_t rows) {
    out.narrow(0, begin, rows).add_(ops::linear(low.narrow(0, begin, rows), b));
  });
}

void add_to_sum(at::Tensor& sum, const at::Tensor& left, const at::Tensor& right) {
  if (sum.defined()) {
    sum.addmm_(left, right);
  } else {
    sum = at::mm(left, right);
  }
}

struct Term : torch::autograd::Function<Term> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& out,
                            const at::Tensor& x,
                            const at::Tensor& a,
                            const at::Tensor& b,
                            const LeftOut& left_out,
                            double scale) {
    const at::Tensor low = low_of(x, a, left_out, scale);
    add_product(out, low, b);
    context->mark_dirty({out});
    context->save_for_backward({x, a, b, low, left_out.rows});
    context->saved_data["rate"] = left_out.rate;
    context->saved_data["key"] = static_cast<int64_t>(left_out.key);
    context->saved_data["layer"] = static_cast<int64_t>(left_out.layer);
    context->saved_data["first"] = left_out.first;
    context->saved_data["scale"] = scale;
    return out;
  }

  // With g the gradient to the sum and m the mask: to low it is g B, to B g^T low; with l that to
  // x A^T, scale g B: to A it is l^T (m x), to x m (l A).
  static tensor_list backward(AutogradContext* context, tensor_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &a = saved[1], &b = saved[2], &low = saved[3];
    const double scale = context->saved_data["scale"].toDouble();
    const LeftOut left_out{.rows = saved[4],
                           .rate = context->saved_data["rate"].toDouble(),
                           .key = static_cast<uint64_t>(context->saved_data["key"].toInt()),
                           .layer = static_cast<uint32_t>(context->saved_data["layer"].toInt()),
                           .first = context->saved_data["first"].toInt()};
    const bool wants_x = context->needs_input_grad(1);
    const at::ScalarType type = a.scalar_type();
    at::Tensor to_x, to_a, to_b;
    const auto some = [&](int64_t begin, int64_t rows) {
      const at::Tensor grad = grads[0].narrow(0, begin, rows).to(type);
      add_to_sum(to_b, grad.t(), low.narrow(0, begin, rows));
      const at::Tensor to_low = at::mm(grad, b).mul_(scale);
      const at::Tensor gradient = wants_x ? at::mm(to_low, a) : at::Tensor();
      add_to_sum(to_a, to_low.t(), inputs_of(x, left_out, begin, rows, type, gradient));
      if (!wants_x) return;
      if (rows == x.size(0)) {
        to_x = gradient.to(x.scalar_type());
      } else {
        if (!to_x.defined()) to_x = at::empty_like(x, at::MemoryFormat::Contiguous);
        to_x.narrow(0, begin, rows).copy_(gradient);
      }
    };
    // Of float32 in one piece: sums of pieces would round otherwise. Where what is computed with is
    // wider than x, only some rows are ever there in it.
    if (x.scalar_type() == type || x.size(0) == 0) {
      some(0, x.size(0));
    } else {
      over_blocks(x, x.size(0), std::max(x.size(1), b.size(0)), some);
    }
    return {grads[0], to_x, to_a, to_b, {}, {}};
  }
};

}  // namespace

at::Tensor LoraTerm::add_to(const at::Tensor& out,
                            const at::Tensor& x,
                            const LayerPart* part) const {
  at::Tensor left = a, right = b;
  Share outputs{begin, begin + rows};
  if (part) {
    left = part->group->shared(a).narrow(1, part->in.begin, part->in.size());
    right = part->group->shared(b);
    outputs = {begin + part->out.begin, begin + part->out.end};
  }
  if (outputs.size() != b.size(0)) right = right.narrow(0, outputs.begin, outputs.size());
  LeftOut left_out;
  if (dropout && dropout->rows.defined()) {
    left_out = {.rows = dropout->at_hand(),
                .rate = dropout->rate,
                .key = dropout->key,
                .layer = number,
                .first = part ? part->in.begin : 0};
    PRAETOR_CHECK(left_out.rows.numel() == x.size(0),
                  "dropout of ",
                  left_out.rows.numel(),
                  " rows in a forward of ",
                  x.size(0));
  }
  const bool grad = at::GradMode::is_enabled() && (out.requires_grad() || x.requires_grad() ||
                                                   left.requires_grad() || right.requires_grad());
  if (grad) return Term::apply(out, x, left, right, left_out, scale);
  const c10::NoGradGuard no_grad;
  add_product(out, low_of(x, left, left_out, scale), right);
  return out;
}

}  // namespace praetor
