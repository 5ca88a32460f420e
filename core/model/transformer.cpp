#include "core/model/transformer.h"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/StringUtil.h>

#include <map>
#include <string_view>
#include <utility>

#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/model/families.h"
#include "core/model/rope.h"
#include "core/model/transformer_builder.h"

namespace praetor {

/// The tensors of one decoder layer; biases undefined where the family has none.
struct Transformer::Layer {
  at::Tensor input_norm, post_norm;
  at::Tensor q, k, v, o, q_bias, k_bias, v_bias, o_bias;
  at::Tensor gate, up, down, gate_bias, up_bias, down_bias;
};

Transformer::Transformer() = default;
Transformer::~Transformer() = default;
Transformer::Transformer(Transformer&&) noexcept = default;
Transformer& Transformer::operator=(Transformer&&) noexcept = default;

Transformer TransformerBuilder::assemble(ModelConfig config, std::vector<NamedTensor> parameters) {
  Transformer out;
  std::map<std::string_view, at::Tensor> by_name;
  for (const NamedTensor& named : parameters) by_name.emplace(named.name, named.tensor);
  const auto find = [&](const std::string& name) {
    const auto found = by_name.find(name);
    return found == by_name.end() ? at::Tensor() : found->second;
  };
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    Transformer::Layer layer;
    const auto linear = [&](const std::string& name, at::Tensor& weight, at::Tensor& bias) {
      weight = find(prefix + name + ".weight");
      bias = find(prefix + name + ".bias");
    };
    layer.input_norm = find(prefix + "input_layernorm.weight");
    layer.post_norm = find(prefix + "post_attention_layernorm.weight");
    linear("self_attn.q_proj", layer.q, layer.q_bias);
    linear("self_attn.k_proj", layer.k, layer.k_bias);
    linear("self_attn.v_proj", layer.v, layer.v_bias);
    linear("self_attn.o_proj", layer.o, layer.o_bias);
    linear("mlp.gate_proj", layer.gate, layer.gate_bias);
    linear("mlp.up_proj", layer.up, layer.up_bias);
    linear("mlp.down_proj", layer.down, layer.down_bias);
    out.layers_.push_back(std::move(layer));
  }
  out.embedding_ = find("model.embed_tokens.weight");
  out.final_norm_ = find("model.norm.weight");
  out.head_ = config.tie_embeddings ? out.embedding_ : find("lm_head.weight");
  RopeTables tables = rope_tables(config, out.embedding_.scalar_type());
  out.cos_ = std::move(tables.cos);
  out.sin_ = std::move(tables.sin);
  out.config_ = std::move(config);
  out.parameters_ = std::move(parameters);
  return out;
}

at::Tensor normal_tensor(const std::vector<int64_t>& shape,
                         double deviation,
                         RandomStream& stream,
                         at::ScalarType dtype) {
  at::Tensor values = at::empty(shape, at::dtype(at::kFloat));
  float* to = values.mutable_data_ptr<float>();
  for (int64_t i = 0; i < values.numel(); ++i)
    to[i] = static_cast<float>(stream.normal() * deviation);
  return values.to(dtype);
}

Transformer::Transformer(ModelConfig config, RandomStream stream, at::ScalarType dtype) {
  // The stream has 2^32 numbers and a normal one takes two.
  if (config.parameter_count() >= int64_t{1} << 31) {
    throw InvalidArgument("model: ",
                          config.parameter_count(),
                          " random parameters wanted, at most 2^31 - 1 can be drawn");
  }
  std::vector<NamedTensor> parameters;
  for (const ParameterSpec& spec : parameter_layout(config)) {
    at::Tensor values;
    switch (spec.init) {
      case ParameterSpec::Init::kNormal:
        values = normal_tensor(spec.shape, config.initializer_range, stream, dtype);
        break;
      case ParameterSpec::Init::kOne:
        values = at::ones(spec.shape, at::dtype(dtype));
        break;
      case ParameterSpec::Init::kZero:
        values = at::zeros(spec.shape, at::dtype(dtype));
        break;
    }
    parameters.push_back({spec.name, std::move(values)});
  }
  *this = TransformerBuilder::assemble(std::move(config), std::move(parameters));
}

Transformer Transformer::clone() const {
  std::vector<NamedTensor> copies;
  for (const NamedTensor& named : parameters_)
    copies.push_back({named.name, named.tensor.detach().clone()});
  return TransformerBuilder::assemble(config_, std::move(copies));
}

void Transformer::set_requires_grad(bool on) {
  for (NamedTensor& named : parameters_) named.tensor.requires_grad_(on);
}

std::string Transformer::digest() const {
  Sha256 digest;
  for (const NamedTensor& named : parameters_) {
    const at::Tensor bytes = named.tensor.detach().cpu().contiguous();
    std::string head = named.name + '\n' + c10::toString(bytes.scalar_type());
    for (const int64_t size : bytes.sizes()) head += ' ' + std::to_string(size);
    digest.update(head + '\n');
    digest.update(std::span(static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()));
  }
  return digest.hex();
}

void Transformer::copy_from(const Transformer& other) {
  if (other.parameters_.size() != parameters_.size()) {
    throw ShapeError("model: copy of ",
                     other.parameters_.size(),
                     " parameters into a model of ",
                     parameters_.size());
  }
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const NamedTensor& from = other.parameters_[i];
    if (from.name != parameters_[i].name || from.tensor.sizes() != parameters_[i].tensor.sizes()) {
      throw ShapeError("model: copy of ",
                       from.name,
                       " ",
                       c10::str(from.tensor.sizes()),
                       " into ",
                       parameters_[i].name,
                       " ",
                       c10::str(parameters_[i].tensor.sizes()));
    }
  }
  const c10::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i)
    parameters_[i].tensor.copy_(other.parameters_[i].tensor);
}

template <typename Attend>
at::Tensor Transformer::forward(const at::Tensor& tokens,
                                const at::Tensor& positions,
                                const std::vector<int64_t>& want,
                                Attend attend) const {
  const at::Tensor cos = cos_.index_select(0, positions);
  const at::Tensor sin = sin_.index_select(0, positions);
  const double eps = config_.norm_eps;
  const int64_t rows = tokens.numel();
  at::Tensor x = ops::embedding(embedding_, tokens);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const auto heads = [&](const at::Tensor& flat, int64_t count) {
      return flat.view({rows, count, config_.head_dim});
    };
    at::Tensor h = ops::rms_norm(x, layer.input_norm, eps);
    const at::Tensor q =
        ops::rope(heads(ops::linear(h, layer.q, layer.q_bias), config_.num_heads), cos, sin);
    const at::Tensor k =
        ops::rope(heads(ops::linear(h, layer.k, layer.k_bias), config_.num_kv_heads), cos, sin);
    const at::Tensor v = heads(ops::linear(h, layer.v, layer.v_bias), config_.num_kv_heads);
    at::Tensor attended = attend(i, q, k, v).reshape({rows, config_.num_heads * config_.head_dim});
    if (!want.empty() && i + 1 == layers_.size()) {
      const at::Tensor wanted = at::tensor(want, at::dtype(at::kLong));
      attended = attended.index_select(0, wanted);
      x = x.index_select(0, wanted);
    }
    x = at::add(x, ops::linear(attended, layer.o, layer.o_bias));
    h = ops::rms_norm(x, layer.post_norm, eps);
    const at::Tensor gate = ops::linear(h, layer.gate, layer.gate_bias);
    const at::Tensor up = ops::linear(h, layer.up, layer.up_bias);
    x = at::add(x, ops::linear(ops::swiglu(gate, up), layer.down, layer.down_bias));
  }
  return ops::rms_norm(x, final_norm_, eps);
}

namespace {

void check_tokens(const int64_t* tokens, int64_t count, int64_t vocab_size) {
  for (int64_t i = 0; i < count; ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      throw DataError("token id ",
                      tokens[i],
                      " (row ",
                      i,
                      " of the batch) is outside the model's vocabulary of ",
                      vocab_size);
    }
  }
}

}  // namespace

at::Tensor Transformer::hidden(const PackedTokens& batch) const {
  const auto& offsets = batch.offsets;
  if (offsets.empty() || offsets.front() != 0 || batch.tokens.dim() != 1 ||
      batch.tokens.scalar_type() != at::kLong || batch.tokens.numel() != offsets.back()) {
    throw ShapeError(
        "model: a packed batch has int64 tokens [T] and offsets from 0 to T, found tokens ",
        c10::str(batch.tokens.sizes()),
        " and last offset ",
        batch.total());
  }
  // All lengths before the first write: a row that goes back would make an earlier one too long for
  // the buffer.
  const auto& prefix = batch.prefix;
  if (!prefix.empty() && prefix.size() + 1 != offsets.size()) {
    throw ShapeError("model: a packed batch of ",
                     batch.sequences(),
                     " sequences has ",
                     prefix.size(),
                     " prefixes");
  }
  std::vector<int64_t> first(static_cast<size_t>(batch.sequences()), 0);  // position
  for (int64_t i = 0; i < batch.sequences(); ++i) {
    const int64_t length = offsets[i + 1] - offsets[i];
    if (length < 0) {
      throw ShapeError("model: offset ", i + 1, " of a packed batch is below the one before it");
    }
    if (!prefix.empty() && prefix[i] >= 0) {
      if (prefix[i] >= i)
        throw ShapeError("model: sequence ", i, " of a packed batch has prefix ", prefix[i]);
      first[i] = offsets[prefix[i] + 1] - offsets[prefix[i]];
    }
    if (first[i] + length > config_.max_positions) {
      throw DataError("sequence ",
                      i,
                      " has ",
                      first[i] + length,
                      " tokens, the model takes at most ",
                      config_.max_positions);
    }
  }
  const at::Tensor tokens = batch.tokens.contiguous();
  check_tokens(tokens.const_data_ptr<int64_t>(), tokens.numel(), config_.vocab_size);
  at::Tensor positions = at::empty({batch.total()}, at::dtype(at::kLong));
  int64_t* position = positions.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < batch.sequences(); ++i) {
    for (int64_t p = 0; p < offsets[i + 1] - offsets[i]; ++p) *position++ = first[i] + p;
  }
  return forward(tokens,
                 positions,
                 {},
                 [&](size_t, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
                   return ops::causal_attention(q, k, v, offsets, prefix);
                 });
}

at::Tensor Transformer::hidden_cached(const CachedRows& rows,
                                      KvCache& cache,
                                      const std::vector<int64_t>& want) const {
  const auto count = static_cast<int64_t>(rows.tokens.size());
  PRAETOR_CHECK(
      rows.positions.size() == rows.tokens.size() && rows.sequence.size() == rows.tokens.size(),
      "an engine step has one position and one sequence for each of its ",
      count,
      " tokens");
  PRAETOR_CHECK(cache.layers.size() == layers_.size(),
                "the cache has ",
                cache.layers.size(),
                " layers, the model ",
                layers_.size());
  check_tokens(rows.tokens.data(), count, config_.vocab_size);
  at::Tensor positions = at::empty({count}, at::dtype(at::kLong));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = rows.positions[i];
    if (position < 0 || position >= config_.max_positions) {
      throw DataError("position ",
                      position,
                      " (row ",
                      i,
                      ") is outside the model's ",
                      config_.max_positions,
                      " positions");
    }
    positions.mutable_data_ptr<int64_t>()[i] = position;
  }
  const c10::NoGradGuard no_grad;
  return forward(at::tensor(rows.tokens, at::dtype(at::kLong)),
                 positions,
                 want,
                 [&](size_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
                   return ops::cached_attention(
                       q, k, v, cache.layers[layer], cache.block_size, rows);
                 });
}

const at::Tensor& Transformer::head() const {
  if (!has_head()) throw InvalidArgument("model: this backbone has no language head");
  return head_;
}

at::Tensor Transformer::logits(const at::Tensor& hidden) const {
  return ops::linear(hidden, head());
}

KvCache Transformer::make_cache(int64_t blocks, int64_t block_size) const {
  if (blocks < 1 || block_size < 1) {
    throw InvalidArgument("model: a cache of ",
                          blocks,
                          " blocks of ",
                          block_size,
                          " tokens; both must be at least 1");
  }
  KvCache cache;
  cache.block_size = block_size;
  const std::vector<int64_t> shape = {blocks, block_size, config_.num_kv_heads, config_.head_dim};
  for (size_t i = 0; i < layers_.size(); ++i) {
    cache.layers.push_back({at::zeros(shape, embedding_.options().requires_grad(false)),
                            at::zeros(shape, embedding_.options().requires_grad(false))});
  }
  return cache;
}

}  // namespace praetor
