#include "core/model/cached_step.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "core/model/kernels/attention.h"
#include "core/model/kernels/buffer.h"
#include "core/model/kernels/isa.h"
#include "core/model/kernels/linear.h"
#include "core/model/kernels/parallel.h"
#include "core/model/ops_checks.h"
#include "core/model/transformer_blocks.h"

namespace praetor {

namespace {

namespace kernels = ops::kernels;

/// What a thread keeps from step to step.
struct Memory {
  kernels::Buffer x, h, q, k, v, attended, gate, up, one_plus;
};

Memory& memory() {
  thread_local Memory memory;
  return memory;
}

class Step {
 public:
  Step(const TransformerBuilder::Blocks& blocks,
       const ModelConfig& config,
       const TransformerBuilder::Places& places,
       const CachedRows& rows,
       WeightKind kind)
      : blocks_(blocks), config_(config), places_(places), rows_(rows), kind_(kind) {
    Memory& kept = memory();
    const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
    const int64_t heads = config.num_heads * config.head_dim;
    const int64_t kv_heads = config.num_kv_heads * config.head_dim;
    x_ = kept.x.reserve(count_ * hidden);
    h_ = kept.h.reserve(count_ * hidden);
    q_ = kept.q.reserve(count_ * heads);
    k_ = kept.k.reserve(count_ * kv_heads);
    v_ = kept.v.reserve(count_ * kv_heads);
    attended_ = kept.attended.reserve(count_ * heads);
    gate_ = kept.gate.reserve(count_ * inner);
    up_ = kept.up.reserve(count_ * inner);
  }

  void embed(const at::Tensor& embedding) {
    const auto scale = static_cast<float>(blocks_.embedding_scale);
    copy_rows(embedding, rows_.tokens, x_);
    for (int64_t i = 0; scale != 1 && i < count_ * config_.hidden_size; ++i) x_[i] *= scale;
    if (!blocks_.positions.defined()) return;
    copy_rows(blocks_.positions, places_.position, h_);
    add();
  }

  /// `want`: the rows that are to go on behind the attention of the last layer.
  void layer(const Layer& layer, KvLayer& cache, const std::vector<int64_t>& want) {
    const int64_t hidden = config_.hidden_size, dims = config_.head_dim;
    const int64_t heads = config_.num_heads, kv_heads = config_.num_kv_heads;
    norm(layer.attention_norm, x_, count_, hidden, h_);
    kernels::products(
        h_, hidden, count_, {product(layer.q, q_), product(layer.k, k_), product(layer.v, v_)});
    if (layer.q_norm.weight.defined()) {
      norm(layer.q_norm, q_, count_ * heads, dims, q_);
      norm(layer.k_norm, k_, count_ * kv_heads, dims, k_);
    }
    if (!blocks_.ropes.empty()) {
      rotate(blocks_.ropes[layer.rope], q_, heads);
      rotate(blocks_.ropes[layer.rope], k_, kv_heads);
    }
    kernels::cached_attention(q_, k_, v_, heads, cache, rows_, layer.attention, attended_);
    if (!want.empty()) keep(want);
    kernels::products(attended_, heads * dims, count_, {product(layer.o, h_)});
    norm_output(layer.attention_output_norm);
    add();
    norm(layer.mlp_norm, x_, count_, hidden, h_);
    mlp(layer);
    norm_output(layer.mlp_output_norm);
    add();
  }

  at::Tensor finish(const at::TensorOptions& options) {
    at::Tensor out = at::empty({count_, config_.hidden_size}, options);
    norm(blocks_.final_norm, x_, count_, config_.hidden_size, out.mutable_data_ptr<float>());
    return out;
  }

 private:
  kernels::Product product(const Linear& of, float* to) const {
    return {of.weight, of.bias, to, kind_};
  }

  void copy_rows(const at::Tensor& table, const std::vector<int64_t>& index, float* to) const {
    const at::Tensor from = table.contiguous();
    const float* all = from.const_data_ptr<float>();
    for (const int64_t i : index) to = std::copy_n(all + i * from.size(1), from.size(1), to);
  }

  /// x += h
  void add() {
    for (int64_t i = 0; i < count_ * config_.hidden_size; ++i) x_[i] += h_[i];
  }

  void norm(const Norm& norm, const float* from, int64_t rows, int64_t width, float* to) const {
    const at::Tensor weight = norm.weight.contiguous();
    const at::Tensor bias = norm.bias.defined() ? norm.bias.contiguous() : at::Tensor();
    const float* w = weight.const_data_ptr<float>();
    if (blocks_.family->norm == NormKind::kRmsOnePlus) {
      float* one_plus = memory().one_plus.reserve(width);
      for (int64_t i = 0; i < width; ++i) one_plus[i] = w[i] + 1.0f;
      w = one_plus;
    }
    const float* b = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
    const auto eps = static_cast<float>(blocks_.eps);
    const bool layer_norm = blocks_.family->norm == NormKind::kLayer;
    kernels::over_rows(rows, 8 * width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin * width; r < end * width; r += width) {
        if (layer_norm) {
          loops_.layer_norm(from + r, w, b, eps, width, to + r);
        } else {
          loops_.rms_norm(from + r, w, eps, width, to + r);
        }
      }
    });
  }

  void norm_output(const Norm& after) {
    if (after.weight.defined()) norm(after, h_, count_, config_.hidden_size, h_);
  }

  /// The first dimensions of each head, as many as are rotated.
  void rotate(const RopeTables& tables, float* x, int64_t heads) const {
    const int64_t half = tables.cos.size(1), dims = config_.head_dim;
    const float *cos = tables.cos.const_data_ptr<float>(),
                *sin = tables.sin.const_data_ptr<float>();
    kernels::over_rows(count_, 16 * heads * half, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const auto i = static_cast<size_t>(r);
        const int64_t at = tables.row(places_.position[i], places_.length[i]) * half;
        for (float* head = x + r * heads * dims; head < x + (r + 1) * heads * dims; head += dims)
          loops_.rope(head, cos + at, sin + at, half, head);
      }
    });
  }

  void keep(const std::vector<int64_t>& want) {
    const auto gather = [&](float*& from, float*& other, int64_t width) {
      float* to = other;
      for (const int64_t r : want) to = std::copy_n(from + r * width, width, to);
      std::swap(from, other);
    };
    gather(x_, h_, config_.hidden_size);
    gather(attended_, q_, config_.num_heads * config_.head_dim);
    count_ = static_cast<int64_t>(want.size());
  }

  void mlp(const Layer& layer) {
    const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
    const MlpKind kind = blocks_.family->mlp;
    const kernels::Product up = product(layer.up, up_);
    if (kind == MlpKind::kGelu) {
      kernels::products(h_, hidden, count_, {up});
    } else {
      kernels::products(h_, hidden, count_, {product(layer.gate, gate_), up});
    }
    kernels::over_rows(count_, 16 * inner, [&](int64_t begin, int64_t end) {
      const int64_t at = begin * inner, n = (end - begin) * inner;
      if (kind == MlpKind::kSwiglu) {
        loops_.swiglu(gate_ + at, up_ + at, n, up_ + at);
      } else if (kind == MlpKind::kGeglu) {
        loops_.gelu(gate_ + at, up_ + at, n, up_ + at);
      } else {
        loops_.gelu(up_ + at, nullptr, n, up_ + at);
      }
    });
    kernels::products(up_, inner, count_, {product(layer.down, h_)});
  }

  const TransformerBuilder::Blocks& blocks_;
  const ModelConfig& config_;
  const TransformerBuilder::Places& places_;
  const CachedRows& rows_;
  WeightKind kind_;
  const kernels::Table& loops_ = kernels::table();
  int64_t count_ = static_cast<int64_t>(rows_.tokens.size());
  float *x_, *h_, *q_, *k_, *v_, *attended_, *gate_, *up_;
};

}  // namespace

at::Tensor cached_step(const TransformerBuilder::Blocks& blocks,
                       const ModelConfig& config,
                       const at::Tensor& embedding,
                       const TransformerBuilder::Places& places,
                       const CachedRows& rows,
                       KvCache& cache,
                       const std::vector<int64_t>& want,
                       WeightKind kind) {
  ops::check_cached_rows(rows,
                         static_cast<int64_t>(rows.tokens.size()),
                         cache.block_size,
                         cache.layers.at(0).keys.size(0));
  Step step(blocks, config, places, rows, kind);
  step.embed(embedding);
  for (size_t i = 0; i < blocks.layers.size(); ++i) {
    const bool last = i + 1 == blocks.layers.size();
    step.layer(blocks.layers[i], cache.layers[i], last ? want : std::vector<int64_t>{});
  }
  return step.finish(embedding.options().requires_grad(false));
}

}  // namespace praetor
