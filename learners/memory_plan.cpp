#include "learners/memory_plan.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "core/base/str.h"
#include "core/model/families.h"
#include "core/model/tensor_split.h"

namespace praetor {
namespace {

constexpr int64_t kFloat = 4;
/// Of ops_logprobs, and where LibTorch's operators compute of attention: floats of the logits, or
/// probabilities, that are there at once.
constexpr int64_t kChunkFloats = int64_t{1} << 24;

/// The widths of a layer.
struct Widths {
  int64_t hidden, heads, kv, inner;
  const Family* family;
  explicit Widths(const ModelConfig& c)
      : hidden(c.hidden_size),
        heads(c.num_heads * c.head_dim),
        kv(c.num_kv_heads * c.head_dim),
        inner(c.intermediate_size),
        family(&family_of(c)) {}
  int64_t gates() const { return family->mlp == MlpKind::kGelu ? 1 : 2; }
  int64_t products() const {
    return 2 * hidden * heads + 2 * hidden * kv + (gates() + 1) * hidden * inner;
  }
};

int64_t head_parameters(const ModelConfig& shape) {
  return shape.tie_embeddings ? 0 : shape.vocab_size * shape.hidden_size;
}

int64_t layer_parameters(const ModelConfig& shape) {
  ModelConfig one = shape, two = shape;
  one.num_layers = 1;
  two.num_layers = 2;
  if (!shape.windowed_layers.empty()) {
    one.windowed_layers.resize(1);
    two.windowed_layers.resize(2);
  }
  return two.parameter_count() - one.parameter_count();
}

int64_t embedding_parameters(const PlannedNetwork& network) {
  const ModelConfig& shape = network.shape;
  return shape.parameter_count() - head_parameters(shape) -
         shape.num_layers * layer_parameters(shape);  // the final norm's are few
}

/// The unit of the heads, with the embedding where that is read again.
int64_t last_parameters(const PlannedNetwork& network) {
  if (!network.language_head) return 2 * network.shape.hidden_size;
  const ModelConfig& shape = network.shape;
  return shape.tie_embeddings ? embedding_parameters(network) : head_parameters(shape);
}

/// Floats of each token that a backward has at once beside what is kept, in the MLP of a layer.
int64_t mlp_workspace(const Widths& w, bool kernels) {
  // The activation itself is gone by then. Kernels: its gradient, and those of what it is made
  // from; else the expressions of ops_activations.
  const int64_t expression = w.family->mlp == MlpKind::kSwiglu ? 7 : 11;
  return (kernels ? 1 + w.gates() : expression) * w.inner + 2 * w.hidden;
}

/// The same of what is computed again of the layer.
int64_t restored_floats(const ModelConfig& shape, ActivationCheckpointing checkpointing) {
  switch (checkpointing) {
    case ActivationCheckpointing::kSelective:
      return shape.hidden_size + (Widths(shape).gates() + 1) * shape.intermediate_size;
    case ActivationCheckpointing::kBlock:
      return kept_floats(shape, ActivationCheckpointing::kNone);
    case ActivationCheckpointing::kNone:
      break;
  }
  return 0;
}

/// Floats of each token that the adapter's products have between A and B, in all layers.
int64_t adapted_floats(const PlannedNetwork& network) {
  const auto layers = static_cast<int64_t>(lora_layers(network.shape, *network.lora).size());
  return network.lora->rank * layers;
}

/// Bytes at one moment of the backward.
struct Moment {
  int64_t units = 0, workspace = 0;
  int64_t sum() const { return units + workspace; }
};

/// Weights of units that are gathered while one of `use` parameters is used and `prefetch` ones of
/// `next` are on their way: those of one network at most.
int64_t gathered(const PlannedNetwork& network,
                 const MemoryPlanOptions& options,
                 int64_t use,
                 int64_t next) {
  const int64_t ahead = std::min(options.sharding.prefetch, network.shape.num_layers + 1);
  const int64_t all = std::max(use, parameter_count(network));
  return options.sharding.stage < 3 ? 0 : options.compute_bytes * std::min(use + ahead * next, all);
}

Moment in_head(const PlannedNetwork& network, const MemoryPlanOptions& options) {
  const ModelConfig& shape = network.shape;
  Moment out;
  out.units = gathered(network, options, last_parameters(network), layer_parameters(shape));
  if (!network.language_head) return out;
  // Rows of the logits: themselves, their gradient, with a cap its slope.
  const int64_t rows = std::min(options.micro_batch_tokens,
                                std::clamp<int64_t>(kChunkFloats / shape.vocab_size, 16, 256));
  const int64_t chunks = shape.logit_softcap > 0 ? 3 : 2;
  const int64_t gradient =
      network.weights_trained() ? shape.vocab_size * shape.hidden_size : int64_t{0};
  out.workspace = kFloat * (chunks * rows * shape.vocab_size + gradient +
                            options.micro_batch_tokens * shape.hidden_size);
  return out;
}

Moment in_layer(const PlannedNetwork& network, const MemoryPlanOptions& options) {
  const ModelConfig& shape = network.shape;
  const Widths w(shape);
  const int64_t layer = layer_parameters(shape), tokens = options.micro_batch_tokens;
  Moment out;
  out.units = gathered(network, options, layer, layer);
  // Its own gradients; beside the computation those of the unit before it are being summed.
  if (options.sharding.stage > 1 && network.weights_trained()) {
    const int64_t last = network.shape.tie_embeddings ? 0 : last_parameters(network);
    out.units +=
        kFloat * (layer + (options.sharding.prefetch > 0 ? std::max(layer, last) : int64_t{0}));
  }
  // Gradients of queries, keys, values and of the result; without kernels also probabilities, and
  // what is made of them.
  int64_t attention = tokens * (2 * w.heads + 2 * w.kv + 2 * w.hidden);
  if (!options.kernels) {
    const int64_t context = std::min(options.sequence_tokens, tokens);
    attention +=
        2 * tokens * w.heads + 3 * std::min(kChunkFloats, shape.num_heads * context * context);
  }
  int64_t restored = options.compute_bytes * restored_floats(shape, options.checkpointing);
  if (network.lora && options.checkpointing == ActivationCheckpointing::kBlock)
    restored += kFloat * ceil_div(adapted_floats(network), shape.num_layers);
  out.workspace =
      tokens * restored + kFloat * std::max(tokens * mlp_workspace(w, options.kernels), attention);
  return out;
}

/// What a rank sees where layers are split: parts of networks, and the ranks that hold the same.
struct View {
  std::vector<PlannedNetwork> networks;
  MemoryPlanOptions options;
  int64_t tensor = 1;  ///< ranks that a layer is split over; in `options` it is none any more
  View(const std::vector<PlannedNetwork>& whole, const MemoryPlanOptions& all)
      : networks(whole), options(all), tensor(all.sharding.tensor) {
    if (tensor == 1) return;
    for (PlannedNetwork& network : networks) {
      network.shape = part_shape(network.shape, tensor);
      if (network.states && network.adapter_parameters == 0)
        network.states = ceil_div(*network.states, tensor);
    }
    options.ranks /= tensor;
    options.sharding.tensor = 1;
  }
};

/// Floats that a rank sends for one sum of `floats` over `ranks`.
int64_t summed_floats(int64_t floats, int64_t ranks) {
  return 2 * (floats - ceil_div(floats, ranks));
}

}  // namespace

int64_t parameter_count(const PlannedNetwork& network) {
  const int64_t all = network.shape.parameter_count();
  return network.language_head ? all
                               : all - head_parameters(network.shape) + network.shape.hidden_size;
}

UnitParameters unit_parameters(const PlannedNetwork& network) {
  const int64_t layer = layer_parameters(network.shape);
  UnitParameters out{.embedding = embedding_parameters(network),
                     .layer = layer,
                     .tied = network.language_head && network.shape.tie_embeddings};
  out.head = parameter_count(network) - out.embedding - network.shape.num_layers * layer;
  return out;
}

int64_t kept_floats(const ModelConfig& shape, ActivationCheckpointing checkpointing) {
  const Widths w(shape);
  if (checkpointing == ActivationCheckpointing::kBlock) return w.hidden;
  // x, and x with attention added; queries, keys, values and what attention makes of them.
  int64_t out = 2 * w.hidden + 2 * w.heads + 2 * w.kv;
  if (w.family->output_norms) out += 2 * w.hidden;
  if (w.family->query_key_norms) out += w.heads + w.kv;  // before the norm
  if (checkpointing == ActivationCheckpointing::kNone)
    out += 2 * w.hidden + (w.gates() + 1) * w.inner;
  return out;
}

int64_t kept_bytes(const PlannedNetwork& network,
                   ActivationCheckpointing checkpointing,
                   int64_t compute_bytes) {
  const ModelConfig& shape = network.shape;
  int64_t floats = shape.num_layers * kept_floats(shape, checkpointing);
  if (!network.lora || checkpointing == ActivationCheckpointing::kBlock)
    return compute_bytes * floats;
  const std::vector<std::string> adapted = lora_layers(shape, *network.lora);
  if (checkpointing == ActivationCheckpointing::kNone) {
    // What goes into frozen layers alone is not kept.
    const Widths w(shape);
    for (int64_t i = 0; i < shape.num_layers; ++i) {
      const auto any = [&](std::initializer_list<const char*> names) {
        return std::ranges::any_of(names, [&](const char* name) {
          return std::ranges::binary_search(adapted, str("model.layers.", i, ".", name));
        });
      };
      const bool into = any({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"});
      const bool output = any({"self_attn.o_proj"}), gated = any({"mlp.gate_proj", "mlp.up_proj"});
      if (!into) floats -= w.hidden;
      if (!gated) floats -= w.hidden;
      if (!any({"mlp.down_proj"})) floats -= w.inner;
      if (i > 0) continue;
      // Nothing has a gradient up to the first adapter.
      floats -= w.hidden;
      if (!into) floats -= 2 * w.heads + 2 * w.kv - (output ? w.heads : 0);
      if (!into && !output) floats -= w.hidden + (gated ? 0 : w.gates() * w.inner);
    }
  }
  // With dropout also a number of the row's tokens.
  const int64_t key = network.lora->dropout > 0 ? int64_t{sizeof(int64_t)} : 0;
  return compute_bytes * floats + kFloat * adapted_floats(network) + key;
}

MemoryPlan plan_memory(const std::vector<PlannedNetwork>& all,
                       const MemoryPlanOptions& all_options) {
  const View view(all, all_options);
  const auto& networks = view.networks;
  const MemoryPlanOptions& options = view.options;
  MemoryPlan out;
  const int64_t copy = options.ranks_of_copy();
  const bool cut = copy > 1;
  const auto kept = [&](int64_t bytes, int64_t from_stage) {
    return cut && options.sharding.stage >= from_stage ? ceil_div(bytes, copy) : bytes;
  };
  MemoryPlanOptions alone = options;
  if (!cut) alone.sharding.stage = 1;
  Moment worst;
  const int64_t element = options.compute_bytes;
  for (const PlannedNetwork& network : networks) {
    const int64_t parameters = parameter_count(network), adapter = network.adapter_parameters;
    // A scalar head is trained beside an adapter, and counted with it.
    const bool headed = adapter > 0 && !network.language_head;
    const int64_t base = parameters - (headed ? network.shape.hidden_size : 0);
    // Whoever owns the weights, the copy is each network's own.
    out.weights += kept((network.weight_bytes - (network.owned ? 0 : kFloat)) * base, 3);
    out.weights += kFloat * (adapter + network.merged_parameters);
    if (!network.trained) continue;
    out.gradients += adapter > 0 ? kFloat * adapter : kept(kFloat * parameters, 2);
    constexpr int64_t kBothMoments = 2 * kFloat;
    const int64_t learning = adapter > 0 ? adapter : parameters;
    (network.offloaded ? out.offloaded : out.moments) +=
        kept(network.states.value_or(kBothMoments * learning), 1) + network.whole_states;
    const ModelConfig& shape = network.shape;
    // Also the final norm's input and the rows that go to the head, and the rotations.
    out.activations =
        std::max(out.activations,
                 options.micro_batch_tokens * (kept_bytes(network, options.checkpointing, element) +
                                               element * (2 * shape.hidden_size + shape.head_dim)));
    for (const Moment& moment : {in_head(network, alone), in_layer(network, alone)}) {
      if (moment.sum() > worst.sum()) worst = moment;
    }
  }
  out.units = worst.units;
  out.workspace = worst.workspace;
  return out;
}

int64_t packed_weight_bytes(const std::vector<PlannedNetwork>& all,
                            const MemoryPlanOptions& all_options) {
  const View view(all, all_options);
  const auto& networks = view.networks;
  const MemoryPlanOptions& options = view.options;
  int64_t out = 0;
  for (const PlannedNetwork& network : networks) {
    if (!network.owned) continue;
    const ModelConfig& shape = network.shape;
    const int64_t layer = Widths(shape).products();
    const int64_t head = network.language_head ? shape.vocab_size * shape.hidden_size : 0;
    out = options.ranks_of_copy() > 1 && options.sharding.stage == 3
              ? std::max(out, kFloat * std::max(layer, head))
              : out + kFloat * (shape.num_layers * layer + head);
  }
  return out;
}

double update_flops(const std::vector<PlannedNetwork>& networks,
                    ActivationCheckpointing checkpointing,
                    int64_t tokens,
                    int64_t context) {
  double out = 0;
  for (const PlannedNetwork& network : networks) {
    const ModelConfig& shape = network.shape;
    const Widths w(shape);
    const auto layers = static_cast<double>(shape.num_layers);
    // Scores and their product with the values, 2 each a head's dimension and token before.
    const double attention = 4.0 * static_cast<double>(w.heads) * static_cast<double>(context);
    const double layer = 2.0 * static_cast<double>(w.products()) + attention;
    const double head = network.language_head ? 2.0 * static_cast<double>(shape.vocab_size) *
                                                    static_cast<double>(w.hidden)
                                              : 0;
    double a_token = layers * layer + head;
    if (network.trained) {
      const double adapter = 2.0 * static_cast<double>(network.adapter_parameters);
      a_token =
          network.weights_trained() ? 3 * a_token : 2 * a_token + layers * attention + 3 * adapter;
      a_token += head + layers * attention;  // logits and probabilities are never kept
      if (checkpointing == ActivationCheckpointing::kBlock) a_token += layers * layer;
      if (checkpointing == ActivationCheckpointing::kSelective)
        a_token += layers * 2.0 * static_cast<double>(w.gates() * w.hidden * w.inner);
    }
    out += a_token * static_cast<double>(tokens);
  }
  return out;
}

int64_t tensor_sums(const PlannedNetwork& network, ActivationCheckpointing checkpointing) {
  const int64_t of_layers = 2 * network.shape.num_layers;
  int64_t out = of_layers + 1;
  if (network.trained) {
    out += of_layers + (network.language_head ? 1 : 0);
    if (checkpointing == ActivationCheckpointing::kBlock) out += of_layers;
  }
  return out;
}

int64_t tensor_sum_bytes(const std::vector<PlannedNetwork>& networks,
                         const MemoryPlanOptions& options,
                         int64_t micro_batches) {
  int64_t out = 0;
  for (const PlannedNetwork& network : networks) {
    const int64_t floats = micro_batches * options.micro_batch_tokens * network.shape.hidden_size;
    out += options.compute_bytes * tensor_sums(network, options.checkpointing) *
           summed_floats(floats, options.sharding.tensor);
  }
  return out;
}

int64_t exchanged_bytes(const std::vector<PlannedNetwork>& all,
                        const MemoryPlanOptions& all_options,
                        int64_t micro_batches) {
  const View view(all, all_options);
  const auto& networks = view.networks;
  const MemoryPlanOptions& options = view.options;
  int64_t out = tensor_sum_bytes(all, all_options, micro_batches);
  if (options.ranks < 2) return out;
  const int64_t copy = options.ranks_of_copy(), copies = options.ranks / copy;
  // A part's sum over the copies: shares of it to their owners, and the sums back.
  const auto over_copies = [&](int64_t bytes) {
    const int64_t part = ceil_div(bytes, copy);
    return 2 * (part - ceil_div(part, copies));
  };
  // All but the own part.
  const auto others = [&](int64_t bytes) { return bytes - ceil_div(bytes, copy); };
  for (const PlannedNetwork& network : networks) {
    const int64_t parameters = parameter_count(network);
    const int64_t whole = others(kFloat * parameters);
    // By a pass at stage 3: a tied head reads the embedding, whose own backward reads no weight.
    const UnitParameters units = unit_parameters(network);
    const int64_t forward = parameters + (units.tied ? units.embedding : 0);
    const int64_t both = 2 * forward - units.embedding;
    const int64_t read = others(options.compute_bytes * (network.trained ? both : forward));
    if (!network.trained) {
      out += options.sharding.stage == 3 ? micro_batches * read : 0;
      continue;
    }
    if (!network.weights_trained()) {
      // Sums of the adapter's gradients and its new values, and at stage 3 the weights that every
      // forward and backward gathers.
      const int64_t adapter = kFloat * network.adapter_parameters;
      out += 2 * others(adapter) + over_copies(adapter);
      if (options.sharding.stage == 3) out += micro_batches * read;
      continue;
    }
    out += over_copies(kFloat * parameters);
    switch (options.sharding.stage) {
      case 1:
        out += 2 * whole;
        break;
      case 2:
        out += (micro_batches + 1) * whole;
        break;
      default:
        out += micro_batches * (read + whole);
    }
  }
  return out;
}

}  // namespace praetor
