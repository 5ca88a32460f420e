#include "core/model/tensor_split.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/str.h"
#include "core/base/text.h"
#include "core/model/model_weights.h"
#include "core/model/transformer_builder.h"

namespace praetor {
namespace {

bool heads_fit(const ModelConfig& config, int64_t ranks) {
  const int64_t keys = config.num_kv_heads;
  return config.num_heads % ranks == 0 && (keys % ranks == 0 || ranks % keys == 0);
}

bool fits(const ModelConfig& config, int64_t ranks) {
  return heads_fit(config, ranks) && ranks <= config.intermediate_size &&
         ranks <= config.vocab_size;
}

Share heads_share(int64_t heads, int64_t head_dim, int64_t rank, int64_t ranks) {
  const int64_t rows = heads / ranks * head_dim;
  return {rank * rows, (rank + 1) * rows};
}

}  // namespace

Share share_of(int64_t count, int64_t rank, int64_t ranks) {
  return {count * rank / ranks, count * (rank + 1) / ranks};
}

std::optional<Share> shared_key_rows(const ModelConfig& config, int64_t rank, int64_t ranks) {
  if (config.num_kv_heads % ranks == 0) return std::nullopt;
  const int64_t head = rank * config.num_kv_heads / ranks;
  return Share{head * config.head_dim, (head + 1) * config.head_dim};
}

TensorPart tensor_part(const ModelConfig& config,
                       std::string_view name,
                       int64_t rank,
                       int64_t ranks) {
  if (ranks == 1) return {};
  const bool bias = name.ends_with(".bias");
  const std::string_view module = name.substr(0, name.rfind('.'));
  const std::string_view last = module.substr(module.rfind('.') + 1);
  const auto is = [&](auto... names) { return ((last == names) || ...); };
  if (is("embed_tokens", "lm_head")) return {0, share_of(config.vocab_size, rank, ranks)};
  if (is("q_proj")) return {0, heads_share(config.num_heads, config.head_dim, rank, ranks)};
  if (is("k_proj", "v_proj")) {
    if (config.num_kv_heads % ranks != 0) return {};
    return {0, heads_share(config.num_kv_heads, config.head_dim, rank, ranks)};
  }
  const Share inner = share_of(config.intermediate_size, rank, ranks);
  if (is("gate_proj", "up_proj")) return {0, inner};
  if (is("o_proj", "down_proj")) {
    if (bias) return {};
    if (is("down_proj")) return {1, inner};
    return {1, heads_share(config.num_heads, config.head_dim, rank, ranks)};
  }
  if (last.ends_with("norm") || is("embed_positions")) return {};
  // A family with layers of another kind says here how they are split.
  throw InternalError("tensor ranks: nobody has said how ", name, " is split");
}

LayerPart layer_part(const ModelConfig& config,
                     const std::string& layer,
                     const at::Tensor& weight,
                     const TensorGroup& group) {
  const TensorPart part = tensor_part(config, layer + ".weight", group.rank(), group.size());
  LayerPart out{.group = &group, .in = {0, weight.size(1)}, .out = {0, weight.size(0)}};
  if (part.dim == 0) out.out = part.range;
  if (part.dim == 1) out.in = part.range;
  out.sums = part.dim == 1;
  if (part.everywhere()) {
    // Keys and values of heads that are fewer than the ranks.
    out.common = true;
    out.out = *shared_key_rows(config, group.rank(), group.size());
  }
  return out;
}

std::optional<std::string> wrong_tensor_ranks(const ModelConfig& config, int64_t ranks) {
  if (fits(config, ranks)) return std::nullopt;
  std::vector<std::string> possible;
  for (int64_t n = 1; n <= config.num_heads; ++n) {
    if (fits(config, n)) possible.push_back(std::to_string(n));
  }
  std::string what = str("a model of ", config.num_heads, " heads and ", config.num_kv_heads);
  if (heads_fit(config, ranks)) {
    what = str(
        "a vocabulary of ", config.vocab_size, " and an MLP of width ", config.intermediate_size);
  } else {
    what += " key/value heads";
  }
  return str(what,
             " cannot be split over ",
             ranks,
             " ranks, which share query heads evenly and have a key/value head or several each, or "
             "several a head; possible are ",
             join(possible, ", "));
}

ModelConfig part_shape(const ModelConfig& config, int64_t ranks) {
  const auto largest = [&](int64_t count) { return (count + ranks - 1) / ranks; };
  ModelConfig out = config;
  out.vocab_size = largest(config.vocab_size);
  out.intermediate_size = largest(config.intermediate_size);
  out.num_heads = largest(config.num_heads);
  // Where every rank has all projections of keys, what it computes counts.
  out.num_kv_heads = std::max<int64_t>(config.num_kv_heads / ranks, 1);
  return out;
}

Transformer split_model(const Transformer& model, const TensorGroup& group) {
  const ModelConfig& config = model.config();
  if (const auto wrong = wrong_tensor_ranks(config, group.size())) throw InvalidArgument(*wrong);
  std::vector<NamedTensor> parts;
  for (const NamedTensor& named : model.parameters()) {
    const TensorPart part = tensor_part(config, named.name, group.rank(), group.size());
    at::Tensor mine = named.tensor;
    if (!part.everywhere() && is_waiting(mine)) {
      std::vector<int64_t> sizes = mine.sizes().vec();
      sizes[static_cast<size_t>(part.dim)] = part.range.size();
      mine = waiting_tensor(sizes, mine.scalar_type(), mine.device());
    } else if (!part.everywhere()) {
      mine = part.of(named.tensor.detach()).clone(at::MemoryFormat::Contiguous);
    }
    parts.push_back({named.name, std::move(mine)});
  }
  return TransformerBuilder::assemble(config, std::move(parts), &group);
}

}  // namespace praetor
