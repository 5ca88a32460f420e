#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/model/checkpointing.h"
#include "core/model/families.h"
#include "core/model/forward_hooks.h"
#include "core/model/lora.h"
#include "core/model/ops.h"
#include "core/model/rope.h"
#include "core/model/tensor_split.h"
#include "core/model/transformer_builder.h"

/// The parts of a Transformer, for core's sources.
namespace praetor {

struct Norm {
  at::Tensor weight, bias;  ///< bias: of a LayerNorm
};

struct Linear {
  at::Tensor weight, bias;                 ///< bias undefined where the family has none
  std::string name;                        ///< "model.layers.0.self_attn.q_proj"
  mutable const LoraTerm* lora = nullptr;  ///< of the adapter at hand; borrowed
  std::optional<LayerPart> split = {};     ///< of a model that is split

  at::Tensor operator()(const at::Tensor& x) const {
    if (!split) return part(x, weight, bias);
    if (!split->sums) return part(x, own(weight), own(bias));
    const at::Tensor out = split->group->summed(part(x, weight, {}));
    return bias.defined() ? at::add(out, bias) : out;
  }

 private:
  at::Tensor part(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) const {
    const at::Tensor out = ops::linear(x, w, b);
    return lora ? lora->add_to(out, x, split ? &*split : nullptr) : out;
  }
  at::Tensor own(const at::Tensor& t) const {
    if (!split->common || !t.defined()) return t;
    return split->group->shared(t).narrow(0, split->out.begin, split->out.size());
  }
};

/// One decoder layer; what its family does not have is undefined.
struct Layer {
  Norm attention_norm, attention_output_norm, mlp_norm, mlp_output_norm, q_norm, k_norm;
  Linear q, k, v, o, gate, up, down;
  ops::AttentionOptions attention;
  size_t rope = 0;  ///< index into Blocks::ropes
};

/// What an MLP computes on its way to the last product.
struct MlpValues {
  at::Tensor normed, gate, up, active;  ///< gate: undefined where the family has none

  std::vector<at::Tensor> list() const {
    std::vector<at::Tensor> out{normed, up, active};
    if (gate.defined()) out.push_back(gate);
    return out;
  }
};

/// What the forward pass needs beside the embedding and the head.
struct Transformer::Blocks {
  const Family* family;
  std::vector<Layer> layers;
  Norm final_norm;
  at::Tensor positions;           ///< learned ones, [max_positions, H]
  std::vector<RopeTables> ropes;  ///< of all layers, or of those without and those with a window
  double embedding_scale = 1;
  double eps = 0;
  const TensorGroup* group = nullptr;     ///< of a model that is split; borrowed
  mutable ForwardHooks* hooks = nullptr;  ///< of the model they are set for; borrowed
  mutable ActivationCheckpointing checkpointing = ActivationCheckpointing::kNone;
  mutable const LoraAdapter* adapter = nullptr;  ///< of the AdapterScope that lives; borrowed

  void enter(size_t part, at::Tensor& x) const {
    if (hooks) x = hooks->enter(part, x);
  }
  void leave(size_t part, at::Tensor& x) const {
    if (hooks) x = hooks->leave(part, x);
  }

  at::Tensor normed(const at::Tensor& x, const Norm& norm) const {
    switch (family->norm) {
      case NormKind::kLayer:
        return ops::layer_norm(x, norm.weight, norm.bias, eps);
      case NormKind::kRmsOnePlus:
        return ops::rms_norm(x, norm.weight, eps, 1);
      case NormKind::kRms:
        break;
    }
    return ops::rms_norm(x, norm.weight, eps);
  }

  /// `x` as it goes into a layer of which this rank has a part.
  at::Tensor shared(const at::Tensor& x) const { return group ? group->shared(x) : x; }

  /// Each head of x [rows, heads, head_dim] by itself.
  at::Tensor normed_heads(const at::Tensor& x, const Norm& norm) const {
    const at::Tensor flat = x.reshape({x.size(0) * x.size(1), x.size(2)});
    return normed(flat, {shared(norm.weight), shared(norm.bias)}).view(x.sizes());
  }

  /// From the layer's values behind its attention, [M,H].
  MlpValues mlp(const at::Tensor& x, const Layer& layer) const {
    MlpValues out;
    out.normed = shared(normed(x, layer.mlp_norm));
    if (family->mlp != MlpKind::kGelu) out.gate = layer.gate(out.normed);
    out.up = layer.up(out.normed);
    switch (family->mlp) {
      case MlpKind::kGelu:
        out.active = ops::gelu(out.up);
        break;
      case MlpKind::kGeglu:
        out.active = ops::geglu(out.gate, out.up);
        break;
      case MlpKind::kSwiglu:
        out.active = ops::swiglu(out.gate, out.up);
        break;
    }
    return out;
  }
};

/// Where the rows of a forward pass stand in their sequences.
struct Transformer::Places {
  std::vector<int64_t> position;  ///< [M]
  std::vector<int64_t> length;    ///< [M] tokens of the row's sequence
};

}  // namespace praetor
