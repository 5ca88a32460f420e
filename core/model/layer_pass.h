#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/model/checkpointing.h"
#include "core/model/transformer_blocks.h"

/// For core's sources.
namespace praetor {

/// Cosines and sines of the rows at hand.
struct Rotation {
  at::Tensor cos, sin;

  /// The first dimensions of each head, as many as are rotated.
  at::Tensor operator()(const at::Tensor& x) const {
    if (!cos.defined()) return x;  // learned positions
    const int64_t rotated = 2 * cos.size(1), all = x.size(2);
    if (rotated == all) return ops::rope(x, cos, sin);
    return at::cat(
        {ops::rope(x.narrow(2, 0, rotated), cos, sin), x.narrow(2, rotated, all - rotated)}, 2);
  }
};

/// One layer over the rows of a forward. It holds all that it needs, for a backward that runs it
/// again when the forward is long over; the model itself lives on.
/// @tparam Attend  attention of rotated queries, keys and values: (layer, q, k, v, options)
template <typename Attend>
struct LayerPass {
  const TransformerBuilder::Blocks* blocks;
  Layer layer;
  size_t index = 0;  ///< of the layer
  Rotation rotate;
  Attend attend;
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;  ///< heads of this rank
  bool selective = false;                                 ///< ActivationCheckpointing::kSelective
  at::Tensor want = {};                                   ///< rows of the result; undefined: all
  const LoraAdapter* adapter = nullptr;                   ///< where some rows are wanted, or null

  at::Tensor operator()(const at::Tensor& x) const {
    const at::Tensor heads = attended(x);
    if (!want.defined()) return finished(x, heads);
    return finished(x.index_select(0, want), heads.index_select(0, want));
  }

 private:
  /// From x [M,H] the heads' results, [M, num_heads * head_dim].
  at::Tensor attended(const at::Tensor& x) const {
    const int64_t rows = x.size(0);
    const at::Tensor h = blocks->shared(blocks->normed(x, layer.attention_norm));
    at::Tensor flat_q = layer.q(h), flat_k = layer.k(h), flat_v = layer.v(h);
    if (selective) {
      drop_until_backward(
          {h}, {&flat_q, &flat_k, &flat_v}, [blocks = blocks, norm = layer.attention_norm, x] {
            return std::vector<at::Tensor>{blocks->normed(x, norm)};
          });
    }
    at::Tensor q = flat_q.view({rows, num_heads, head_dim});
    at::Tensor k = flat_k.view({rows, num_kv_heads, head_dim});
    const at::Tensor v = flat_v.view({rows, num_kv_heads, head_dim});
    if (layer.q_norm.weight.defined()) {
      q = blocks->normed_heads(q, layer.q_norm);
      k = blocks->normed_heads(k, layer.k_norm);
    }
    return attend(index, rotate(q), rotate(k), v, layer.attention)
        .reshape({rows, num_heads * head_dim});
  }

  /// The layer's result from its input and what attention made of it, of the rows that go on.
  at::Tensor finished(const at::Tensor& x, const at::Tensor& attended) const {
    const WantedRows rows(adapter);
    at::Tensor out = layer.o(attended);
    if (layer.attention_output_norm.weight.defined())
      out = blocks->normed(out, layer.attention_output_norm);
    const at::Tensor between = at::add(x, out);
    out = mlp(between);
    if (layer.mlp_output_norm.weight.defined()) out = blocks->normed(out, layer.mlp_output_norm);
    return at::add(between, out);
  }

  at::Tensor mlp(const at::Tensor& x) const {
    const MlpValues values = blocks->mlp(x, layer);
    at::Tensor out = layer.down(values.active);
    if (selective) {
      drop_until_backward(values.list(), {&out}, [pass = *this, x] {
        const WantedRows rows(pass.adapter);
        return pass.blocks->mlp(x, pass.layer).list();
      });
    }
    return out;
  }
};

}  // namespace praetor
