#include "core/model/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <span>
#include <string_view>
#include <utility>

#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/model/cached_step.h"
#include "core/model/layer_pass.h"
#include "core/model/ops_checks.h"
#include "core/model/tensor_split.h"
#include "core/model/transformer_blocks.h"

namespace praetor {

namespace {

/// Finds tensors by name.
class Modules {
 public:
  explicit Modules(const std::vector<NamedTensor>& tensors) {
    for (const NamedTensor& named : tensors) by_name_.emplace(named.name, named.tensor);
  }
  at::Tensor find(const std::string& name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? at::Tensor() : found->second;
  }
  Norm norm(const std::string& name) const {
    return {find(name + ".weight"), find(name + ".bias")};
  }
  Linear linear(const std::string& name) const {
    return {find(name + ".weight"), find(name + ".bias"), name};
  }

 private:
  std::map<std::string_view, at::Tensor> by_name_;
};

Layer layer_of(const Modules& modules,
               const ModelConfig& config,
               int64_t i,
               const TensorGroup* group) {
  const Family& family = family_of(config);
  const std::string prefix = "model.layers." + std::to_string(i) + ".";
  Layer out;
  out.attention_norm = modules.norm(prefix + "input_layernorm");
  if (family.output_norms) {
    out.attention_output_norm = modules.norm(prefix + "post_attention_layernorm");
    out.mlp_norm = modules.norm(prefix + "pre_feedforward_layernorm");
    out.mlp_output_norm = modules.norm(prefix + "post_feedforward_layernorm");
  } else {
    out.mlp_norm = modules.norm(prefix + "post_attention_layernorm");
  }
  out.q_norm = modules.norm(prefix + "self_attn.q_norm");
  out.k_norm = modules.norm(prefix + "self_attn.k_norm");
  out.q = modules.linear(prefix + "self_attn.q_proj");
  out.k = modules.linear(prefix + "self_attn.k_proj");
  out.v = modules.linear(prefix + "self_attn.v_proj");
  out.o = modules.linear(prefix + "self_attn.o_proj");
  out.gate = modules.linear(prefix + "mlp.gate_proj");
  out.up = modules.linear(prefix + "mlp.up_proj");
  out.down = modules.linear(prefix + "mlp.down_proj");
  if (config.query_scalar > 0) out.attention.scale = 1.0 / std::sqrt(config.query_scalar);
  out.attention.softcap = config.attention_softcap;
  out.attention.window = config.window_of(i);
  const bool windowed = !config.windowed_layers.empty() && config.windowed_layers[size_t(i)];
  out.rope = windowed && config.local_rope ? 1 : 0;
  if (!group) return out;
  for (Linear* linear : {&out.q, &out.k, &out.v, &out.o, &out.gate, &out.up, &out.down}) {
    if (linear->weight.defined())
      linear->split = layer_part(config, linear->name, linear->weight, *group);
  }
  return out;
}

}  // namespace

Transformer::Transformer() = default;
Transformer::~Transformer() = default;
Transformer::Transformer(Transformer&&) noexcept = default;
Transformer& Transformer::operator=(Transformer&&) noexcept = default;

Transformer TransformerBuilder::assemble(ModelConfig config,
                                         std::vector<NamedTensor> parameters,
                                         const TensorGroup* group) {
  Transformer out;
  const Modules modules(parameters);
  auto blocks = std::make_unique<Transformer::Blocks>();
  blocks->family = &family_of(config);
  blocks->group = group;
  for (int64_t i = 0; i < config.num_layers; ++i)
    blocks->layers.push_back(layer_of(modules, config, i, group));
  blocks->final_norm = modules.norm("model.norm");
  blocks->positions = modules.find("model.embed_positions.weight");
  blocks->eps = config.norm_eps;
  if (blocks->family->scaled_embedding)
    blocks->embedding_scale = std::sqrt(static_cast<double>(config.hidden_size));
  out.embedding_ = modules.find("model.embed_tokens.weight");
  out.head_.weight = config.tie_embeddings ? out.embedding_ : modules.find("lm_head.weight");
  out.head_.softcap = config.logit_softcap;
  if (group) {
    out.head_.group = group;
    out.head_.first = share_of(config.vocab_size, group->rank(), group->size()).begin;
    out.head_.vocabulary = config.vocab_size;
  }
  const auto add_rope = [&](const RopeConfig& rope) {
    RopeTables tables = rope_tables(config, rope, out.dtype());
    tables.cos = tables.cos.to(out.embedding_.device());
    tables.sin = tables.sin.to(out.embedding_.device());
    blocks->ropes.push_back(std::move(tables));
  };
  if (!blocks->family->learned_positions) {
    add_rope(config.rope);
    if (config.local_rope) add_rope(*config.local_rope);
  }
  out.blocks_ = std::move(blocks);
  out.config_ = std::move(config);
  out.parameters_ = std::move(parameters);
  return out;
}

const TensorGroup* TransformerBuilder::group_of(const Transformer& model) {
  return model.blocks_->group;
}

void TransformerBuilder::set_hooks(Transformer& model, ForwardHooks* hooks) {
  model.blocks_->hooks = hooks;
}

void TransformerBuilder::set_checkpointing(Transformer& model, ActivationCheckpointing what) {
  model.blocks_->checkpointing = what;
}

const LoraAdapter* TransformerBuilder::set_adapter(const Transformer& model,
                                                   const LoraAdapter* adapter) {
  for (const Layer& layer : model.blocks_->layers) {
    for (const Linear* linear :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down})
      linear->lora = adapter ? adapter->find(linear->name) : nullptr;
  }
  return std::exchange(model.blocks_->adapter, adapter);
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
  return TransformerBuilder::assemble(config_, std::move(copies), blocks_->group);
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

namespace {

Rotation rotation_of(const RopeTables& tables,
                     const std::vector<int64_t>& position,
                     const std::vector<int64_t>& length) {
  std::vector<int64_t> rows(position.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = tables.row(position[i], length[i]);
  const at::Tensor index = at::tensor(rows, at::dtype(at::kLong)).to(tables.cos.device());
  return {tables.cos.index_select(0, index), tables.sin.index_select(0, index)};
}

}  // namespace

namespace {

/// Of a table whose rows lie over the ranks: each gives those that are its own.
at::Tensor split_embedding(const at::Tensor& table,
                           const at::Tensor& tokens,
                           int64_t vocabulary,
                           const TensorGroup& group) {
  const Share own = share_of(vocabulary, group.rank(), group.size());
  const at::Tensor others = tokens.lt(own.begin).logical_or_(tokens.ge(own.end));
  const at::Tensor row = (tokens - own.begin).masked_fill_(others, 0);
  return group.summed(ops::embedding(table, row).masked_fill(others.unsqueeze(1), 0));
}

}  // namespace

at::Tensor Transformer::embed(const at::Tensor& tokens, const Places& places) const {
  const TensorGroup* const group = blocks_->group;
  at::Tensor x = group ? split_embedding(embedding_, tokens, config_.vocab_size, *group)
                       : ops::embedding(embedding_, tokens);
  if (blocks_->embedding_scale != 1) x = at::mul(x, blocks_->embedding_scale);
  if (!blocks_->positions.defined()) return x;
  const at::Tensor positions =
      at::tensor(places.position, at::dtype(at::kLong)).to(embedding_.device());
  return at::add(x, ops::embedding(blocks_->positions, positions));
}

template <typename Attend>
at::Tensor Transformer::forward(const at::Tensor& tokens,
                                const Places& places,
                                const at::Tensor& want,
                                Attend attend) const {
  const Blocks& blocks = *blocks_;
  const at::Tensor wanted = want.defined() ? want.to(embedding_.device()) : want;
  const int64_t ranks = blocks.group ? blocks.group->size() : 1;
  std::vector<Rotation> rotations(std::max<size_t>(1, blocks.ropes.size()));
  for (size_t i = 0; i < blocks.ropes.size(); ++i)
    rotations[i] = rotation_of(blocks.ropes[i], places.position, places.length);
  at::Tensor x;
  blocks.enter(0, x);
  x = embed(tokens, places);
  blocks.leave(0, x);
  for (size_t i = 0; i < blocks.layers.size(); ++i) {
    blocks.enter(i + 1, x);
    const Layer& layer = blocks.layers[i];
    const bool last = i + 1 == blocks.layers.size();
    const LayerPass<Attend> pass{
        .blocks = &blocks,
        .layer = layer,
        .index = i,
        .rotate = rotations[layer.rope],
        .attend = attend,
        .num_heads = config_.num_heads / ranks,
        .num_kv_heads = std::max<int64_t>(config_.num_kv_heads / ranks, 1),
        .head_dim = config_.head_dim,
        .selective = blocks.checkpointing == ActivationCheckpointing::kSelective,
        .want = last ? wanted : at::Tensor(),
        .adapter = last && wanted.defined() ? blocks.adapter : nullptr};
    x = blocks.checkpointing == ActivationCheckpointing::kBlock ? recomputed(x, pass) : pass(x);
    blocks.leave(i + 1, x);
  }
  blocks.enter(blocks.layers.size() + 1, x);
  return blocks.normed(x, blocks.final_norm);
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

/// A GPU would be lost to its process over an index that is outside.
void check_wanted(const at::Tensor& want, int64_t rows) {
  if (want.dim() != 1 || want.scalar_type() != at::kLong) {
    throw ShapeError("model: wanted rows are int64 [R], found ",
                     c10::toString(want.scalar_type()),
                     " ",
                     c10::str(want.sizes()));
  }
  if (!want.is_cpu()) return;
  const at::Tensor all = want.contiguous();
  for (const int64_t row : std::span(all.const_data_ptr<int64_t>(), all.numel())) {
    if (row < 0 || row >= rows)
      throw ShapeError("model: row ", row, " of a batch of ", rows, " is wanted");
  }
}

/// Tokens of each sequence with its prefix, and for a prefix those of the longest that goes on
/// after it. @throws ShapeError where that one and a shorter one would turn it otherwise
std::vector<int64_t> whole_lengths(const PackedTokens& batch,
                                   const std::vector<int64_t>& first,
                                   int64_t switch_length) {
  std::vector<int64_t> out(first);
  for (size_t i = 0; i < out.size(); ++i) out[i] += batch.offsets[i + 1] - batch.offsets[i];
  std::vector<int64_t> shortest(out.size(), std::numeric_limits<int64_t>::max());
  for (size_t i = 0; i < batch.prefix.size(); ++i) {
    if (batch.prefix[i] < 0) continue;
    const auto prefix = static_cast<size_t>(batch.prefix[i]);
    out[prefix] = std::max(out[prefix], out[i]);
    shortest[prefix] = std::min(shortest[prefix], out[i]);
    if (shortest[prefix] <= switch_length && out[prefix] > switch_length) {
      throw ShapeError("model: sequences of ",
                       shortest[prefix],
                       " and of ",
                       out[prefix],
                       " tokens share a prefix, but rotations change behind ",
                       switch_length,
                       " tokens");
    }
  }
  return out;
}

}  // namespace

at::Tensor Transformer::hidden(const PackedTokens& batch, const at::Tensor& want) const {
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
  if (want.defined()) check_wanted(want, batch.total());
  const at::Tensor tokens = batch.tokens.contiguous();
  check_tokens(tokens.const_data_ptr<int64_t>(), tokens.numel(), config_.vocab_size);
  if (blocks_->adapter) blocks_->adapter->begin_forward(batch, want);
  Places places;
  const std::vector<int64_t> whole = whole_lengths(batch, first, config_.switch_length());
  for (int64_t i = 0; i < batch.sequences(); ++i) {
    const int64_t length = offsets[i + 1] - offsets[i];
    for (int64_t p = 0; p < length; ++p) places.position.push_back(first[i] + p);
    places.length.insert(places.length.end(), static_cast<size_t>(length), whole[i]);
  }
  // Kept by the layers that a backward runs again.
  const auto kept = std::make_shared<const PackedTokens>(batch);
  return forward(tokens.to(embedding_.device()),
                 places,
                 want,
                 [kept](size_t,
                        const at::Tensor& q,
                        const at::Tensor& k,
                        const at::Tensor& v,
                        const ops::AttentionOptions& options) {
                   return ops::causal_attention(q, k, v, kept->offsets, options, kept->prefix);
                 });
}

at::Tensor TransformerBuilder::hidden_cached(const Transformer& model,
                                             const CachedRows& rows,
                                             KvCache& cache,
                                             const std::vector<int64_t>& want,
                                             WeightKind kind) {
  const Blocks& blocks = *model.blocks_;
  const ModelConfig& config = model.config_;
  const auto count = static_cast<int64_t>(rows.tokens.size());
  PRAETOR_CHECK(!blocks.adapter, "an engine's step under an adapter, not with merged weights");
  PRAETOR_CHECK(!blocks.group, "an engine's step on one rank's part of a model");
  PRAETOR_CHECK(
      rows.positions.size() == rows.tokens.size() && rows.sequence.size() == rows.tokens.size(),
      "an engine step has one position and one sequence for each of its ",
      count,
      " tokens");
  PRAETOR_CHECK(cache.layers.size() == blocks.layers.size(),
                "the cache has ",
                cache.layers.size(),
                " layers, the model ",
                blocks.layers.size());
  check_tokens(rows.tokens.data(), count, config.vocab_size);
  Places places;
  const std::vector<int64_t> lengths = ops::cached_lengths(rows);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = rows.positions[i];
    if (position < 0 || position >= config.max_positions) {
      throw DataError("position ",
                      position,
                      " (row ",
                      i,
                      ") is outside the model's ",
                      config.max_positions,
                      " positions");
    }
    places.position.push_back(position);
    places.length.push_back(lengths.at(static_cast<size_t>(rows.sequence[i])));
  }
  const c10::NoGradGuard no_grad;
  if (ops::uses_kernels(model.embedding_))
    return cached_step(blocks, config, model.embedding_, places, rows, cache, want, kind);
  return model.forward(at::tensor(rows.tokens, at::dtype(at::kLong)).to(model.embedding_.device()),
                       places,
                       want.empty() ? at::Tensor() : at::tensor(want, at::dtype(at::kLong)),
                       [&](size_t layer,
                           const at::Tensor& q,
                           const at::Tensor& k,
                           const at::Tensor& v,
                           const ops::AttentionOptions& options) {
                         return ops::cached_attention(
                             q, k, v, cache.layers[layer], cache.block_size, rows, options);
                       });
}

at::Tensor Transformer::hidden_cached(const CachedRows& rows,
                                      KvCache& cache,
                                      const std::vector<int64_t>& want) const {
  return TransformerBuilder::hidden_cached(*this, rows, cache, want, WeightKind::kFloat32);
}

const ops::LanguageHead& Transformer::head() const {
  if (!has_head()) throw InvalidArgument("model: this backbone has no language head");
  return head_;
}

at::Tensor Transformer::logits(const at::Tensor& hidden) const {
  return ops::logits(hidden, head());
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
  const int64_t heads = config_.num_kv_heads, dims = config_.head_dim;
  const auto options = embedding_.options().requires_grad(false);
  for (size_t i = 0; i < blocks_->layers.size(); ++i) {
    cache.layers.push_back({at::zeros({blocks, heads, dims, block_size}, options),
                            at::zeros({blocks, block_size, heads, dims}, options)});
  }
  return cache;
}

}  // namespace praetor
