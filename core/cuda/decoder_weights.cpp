// What a decoder computes, and where its weights lie.
#include <ATen/ops/add.h>

#include <set>
#include <utility>

#include "core/base/error.h"
#include "core/cuda/decoder_layer.h"
#include "core/model/families.h"
#include "core/model/ops_checks.h"
#include "core/model/rope.h"

namespace praetor::cuda {

std::string Decoder::unsupported(const ModelConfig& c) {
  if (c.head_dim % 8 != 0) return str("head_dim: ", c.head_dim, " is not a multiple of 8");
  if (c.vocab_size > SampleKernel::kMostIds)
    return str("vocab_size: ", c.vocab_size, " is above ", SampleKernel::kMostIds);
  if (c.local_rope && c.local_rope->scaling == "longrope")
    return "rope: longrope of the layers with a window";
  return "";
}

int64_t Decoder::weight_bytes(const ModelConfig& config) {
  return config.parameter_count() * static_cast<int64_t>(sizeof(Bfloat16));
}

int64_t Decoder::block_bytes(const ModelConfig& c, int64_t block_size) {
  return 2 * c.num_layers * c.num_kv_heads * c.head_dim * block_size *
         static_cast<int64_t>(sizeof(Bfloat16));
}

void Decoder::add_rope(const RopeConfig& rope) {
  Rope out{.tables = rope_tables(config_, rope, at::kFloat),
           .half = rotated_dims(config_, rope) / 2};
  const auto put = [&](const at::Tensor& from) {
    DeviceArray<float> to(device_, from.numel());
    to.upload(from.const_data_ptr<float>(), from.numel());
    return to;
  };
  out.cos = put(out.tables.cos);
  out.sin = put(out.tables.sin);
  out.tables.cos = out.tables.sin = at::Tensor();
  ropes_.push_back(std::move(out));
}

void Decoder::place_weights() {
  const ModelConfig& c = config_;
  const int64_t hidden = c.hidden_size, inner = c.intermediate_size, d = c.head_dim;
  std::set<std::string> there;
  for (const ParameterSpec& spec : parameter_layout(c)) there.insert(spec.name);
  const auto matrix = [&](const std::string& name,
                          DeviceArray<Bfloat16>& in,
                          int64_t row,
                          int64_t out,
                          int64_t width) {
    places_[name + ".weight"] = {&in, nullptr, row * width, {out, width}};
  };
  const auto vector = [&](const std::string& name, DeviceArray<float>& in, int64_t at, int64_t n) {
    places_[name] = {nullptr, &in, at, {n}};
  };
  const float plus = family_of(c).norm == NormKind::kRmsOnePlus ? 1 : 0;
  const auto norm = [&](const std::string& name, NormWeights& in, int64_t n) {
    for (const auto& [part, to] : {std::pair{".weight", &in.weight}, {".bias", &in.bias}}) {
      if (!there.contains(name + part)) continue;
      *to = DeviceArray<float>(device_, n);
      vector(name + part, *to, 0, n);
    }
    if (there.contains(name + ".weight")) places_.at(name + ".weight").plus = plus;
  };
  // The biases of rows [at, at + n) of several layers' products together, of `all` rows.
  const auto bias =
      [&](const std::string& name, DeviceArray<float>& in, int64_t at, int64_t n, int64_t all) {
        if (!there.contains(name + ".bias")) return;
        if (in.size() == 0) in = DeviceArray<float>(device_, all);
        vector(name + ".bias", in, at, n);
      };
  embedding_ = DeviceArray<Bfloat16>(device_, c.vocab_size * hidden);
  matrix("model.embed_tokens", embedding_, 0, c.vocab_size, hidden);
  if (family_of(c).learned_positions) {
    positions_ = DeviceArray<Bfloat16>(device_, c.max_positions * hidden);
    matrix("model.embed_positions", positions_, 0, c.max_positions, hidden);
  }
  if (!c.tie_embeddings) {
    head_ = DeviceArray<Bfloat16>(device_, c.vocab_size * hidden);
    matrix("lm_head", head_, 0, c.vocab_size, hidden);
  }
  norm("model.norm", final_norm_, hidden);
  for (int64_t i = 0; i < c.num_layers; ++i) {
    layers_.push_back(std::make_unique<Layer>());
    Layer& to = *layers_.back();
    to.window = c.window_of(i);
    const bool windowed = !c.windowed_layers.empty() && c.windowed_layers[static_cast<size_t>(i)];
    to.rope = windowed && c.local_rope ? 1 : 0;
    to.qkv = DeviceArray<Bfloat16>(device_, qkv_width(c) * hidden);
    to.o = DeviceArray<Bfloat16>(device_, hidden * query_width(c));
    to.gate_up = DeviceArray<Bfloat16>(device_, (gated_ ? 2 : 1) * inner * hidden);
    to.down = DeviceArray<Bfloat16>(device_, hidden * inner);
    const std::string name = str("model.layers.", i, ".");
    norm(name + "input_layernorm", to.attention_norm, hidden);
    if (family_of(c).output_norms) {
      norm(name + "post_attention_layernorm", to.attention_output_norm, hidden);
      norm(name + "pre_feedforward_layernorm", to.mlp_norm, hidden);
      norm(name + "post_feedforward_layernorm", to.mlp_output_norm, hidden);
    } else {
      norm(name + "post_attention_layernorm", to.mlp_norm, hidden);
    }
    norm(name + "self_attn.q_norm", to.q_norm, d);
    norm(name + "self_attn.k_norm", to.k_norm, d);
    const std::pair<const char*, int64_t> parts[] = {
        {"q_proj", c.num_heads}, {"k_proj", c.num_kv_heads}, {"v_proj", c.num_kv_heads}};
    int64_t row = 0;
    for (const auto& [part, heads] : parts) {
      matrix(name + "self_attn." + part, to.qkv, row, heads * d, hidden);
      bias(name + "self_attn." + part, to.qkv_bias, row, heads * d, qkv_width(c));
      row += heads * d;
    }
    matrix(name + "self_attn.o_proj", to.o, 0, hidden, query_width(c));
    bias(name + "self_attn.o_proj", to.o_bias, 0, hidden, hidden);
    const int64_t first = gated_ ? inner : 0;  // row of what is not the gate
    if (gated_) {
      matrix(name + "mlp.gate_proj", to.gate_up, 0, inner, hidden);
      bias(name + "mlp.gate_proj", to.gate_up_bias, 0, inner, 2 * inner);
    }
    matrix(name + "mlp.up_proj", to.gate_up, first, inner, hidden);
    bias(name + "mlp.up_proj", to.gate_up_bias, first, inner, first + inner);
    matrix(name + "mlp.down_proj", to.down, 0, hidden, inner);
    bias(name + "mlp.down_proj", to.down_bias, 0, hidden, hidden);
  }
}

void Decoder::set(const std::string& name, const at::Tensor& values) {
  const auto found = places_.find(name);
  if (found == places_.end()) throw InvalidArgument("the GPU engine has no parameter ", name);
  const Place& place = found->second;
  if (values.sizes() != at::IntArrayRef(place.shape)) {
    throw InvalidArgument("the GPU engine: ",
                          name,
                          " is ",
                          ops::describe(values),
                          ", wanted ",
                          ::praetor::str(at::IntArrayRef(place.shape)));
  }
  if (place.vector) {
    at::Tensor from = values.detach().to(at::kFloat).contiguous();
    if (place.plus != 0) from = at::add(from, place.plus);
    place.vector->upload(from.const_data_ptr<float>(), from.numel(), place.at);
  } else {
    const at::Tensor from = values.detach().to(at::kBFloat16).contiguous();
    place.matrix->upload(
        static_cast<const Bfloat16*>(from.const_data_ptr()), from.numel(), place.at);
  }
}

void Decoder::load(const Transformer& model) {
  for (const NamedTensor& parameter : model.parameters()) set(parameter.name, parameter.tensor);
}

}  // namespace praetor::cuda
