#include "core/model/families.h"

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

namespace {

constexpr StoredModule kGpt2Modules[] = {
    {"transformer.wte", {"model.embed_tokens"}},
    {"transformer.wpe", {"model.embed_positions"}},
    {"transformer.h.#.ln_1", {"model.layers.#.input_layernorm"}},
    {"transformer.h.#.attn.c_attn",
     {"model.layers.#.self_attn.q_proj",
      "model.layers.#.self_attn.k_proj",
      "model.layers.#.self_attn.v_proj"},
     true},
    {"transformer.h.#.attn.c_proj", {"model.layers.#.self_attn.o_proj"}, true},
    {"transformer.h.#.ln_2", {"model.layers.#.post_attention_layernorm"}},
    {"transformer.h.#.mlp.c_fc", {"model.layers.#.mlp.up_proj"}, true},
    {"transformer.h.#.mlp.c_proj", {"model.layers.#.mlp.down_proj"}, true},
    {"transformer.ln_f", {"model.norm"}},
};

constexpr StoredModule kPhi3Modules[] = {
    {"model.layers.#.self_attn.qkv_proj",
     {"model.layers.#.self_attn.q_proj",
      "model.layers.#.self_attn.k_proj",
      "model.layers.#.self_attn.v_proj"}},
    {"model.layers.#.mlp.gate_up_proj",
     {"model.layers.#.mlp.gate_proj", "model.layers.#.mlp.up_proj"}},
};

constexpr Family kFamilies[] = {
    {.name = "llama",
     .causal_lm = "LlamaForCausalLM",
     .sequence_classification = "LlamaForSequenceClassification",
     .reads_attention_bias = true,
     .reads_mlp_bias = true},
    {.name = "mistral",
     .causal_lm = "MistralForCausalLM",
     .sequence_classification = "MistralForSequenceClassification",
     .windows = WindowRule::kAll,
     .default_window = 4096,
     .default_kv_heads = 8},
    {.name = "qwen2",
     .causal_lm = "Qwen2ForCausalLM",
     .sequence_classification = "Qwen2ForSequenceClassification",
     .qkv_bias = true,
     .windows = WindowRule::kUpper,
     .default_window = 4096,
     .default_kv_heads = 32},
    {.name = "qwen3",
     .causal_lm = "Qwen3ForCausalLM",
     .sequence_classification = "Qwen3ForSequenceClassification",
     .query_key_norms = true,
     .reads_attention_bias = true,
     .windows = WindowRule::kUpper,
     .default_window = 4096,
     .default_kv_heads = 32,
     .default_head_dim = 128},
    {.name = "gpt2",
     .causal_lm = "GPT2LMHeadModel",
     .sequence_classification = "GPT2ForSequenceClassification",
     .norm = NormKind::kLayer,
     .mlp = MlpKind::kGelu,
     .learned_positions = true,
     .all_biases = true,
     .stored = kGpt2Modules,
     .optional_prefix = "transformer.",
     .keys = {.hidden_size = "n_embd",
              .intermediate_size = "n_inner",
              .num_layers = "n_layer",
              .num_heads = "n_head",
              .num_kv_heads = nullptr,
              .head_dim = nullptr,
              .max_positions = "n_positions",
              .norm_eps = "layer_norm_epsilon",
              .activation = "activation_function"},
     .activation = "gelu_new",
     .intermediate_factor = 4,
     .default_norm_eps = 1e-5,
     .default_tied = true},
    {.name = "phi3",
     .causal_lm = "Phi3ForCausalLM",
     .sequence_classification = "Phi3ForSequenceClassification",
     .stored = kPhi3Modules,
     .longrope = true,
     .windows = WindowRule::kAll,
     .default_norm_eps = 1e-5},
    {.name = "gemma2",
     .causal_lm = "Gemma2ForCausalLM",
     .sequence_classification = "Gemma2ForSequenceClassification",
     .norm = NormKind::kRmsOnePlus,
     .mlp = MlpKind::kGeglu,
     .output_norms = true,
     .scaled_embedding = true,
     .keys = {.activation = "hidden_activation"},
     .activation = "gelu_pytorch_tanh",
     .reads_attention_bias = true,
     .windows = WindowRule::kMixed,
     .window_period = 2,
     .default_window = 4096,
     .default_kv_heads = 4,
     .default_head_dim = 256,
     .default_query_scalar = 256,
     .default_attention_softcap = 50,
     .default_logit_softcap = 30,
     .reads_attention_softcap = true,
     .reads_logit_softcap = true,
     .default_tied = true},
    {.name = "gemma3_text",
     .causal_lm = "Gemma3ForCausalLM",
     .sequence_classification = "Gemma3TextForSequenceClassification",
     .norm = NormKind::kRmsOnePlus,
     .mlp = MlpKind::kGeglu,
     .output_norms = true,
     .query_key_norms = true,
     .scaled_embedding = true,
     .keys = {.activation = "hidden_activation"},
     .activation = "gelu_pytorch_tanh",
     .reads_attention_bias = true,
     .local_rope = true,
     .windows = WindowRule::kMixed,
     .window_period = 6,
     .default_window = 4096,
     .default_kv_heads = 4,
     .default_head_dim = 256,
     .default_theta = 1e6,
     .default_query_scalar = 256,
     .reads_logit_softcap = true,
     .default_tied = true},
};

void check_size(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw InvalidArgument("model: ", field, " ", value, " is outside [", low, ", ", high, "]");
  }
}

void check_sizes(const ModelConfig& config) {
  constexpr int64_t kMany = int64_t{1} << 24;
  check_size("vocab_size", config.vocab_size, 1, kMany);
  check_size("hidden_size", config.hidden_size, 1, kMany);
  check_size("intermediate_size", config.intermediate_size, 1, kMany);
  check_size("num_layers", config.num_layers, 1, 4096);
  check_size("num_heads", config.num_heads, 1, 65536);
  check_size("num_kv_heads", config.num_kv_heads, 1, config.num_heads);
  check_size("head_dim", config.head_dim, 1, 65536);
  check_size("max_positions", config.max_positions, 1, int64_t{1} << 21);
  if (config.num_heads % config.num_kv_heads != 0) {
    throw InvalidArgument("model: num_heads ",
                          config.num_heads,
                          " is not a multiple of num_kv_heads ",
                          config.num_kv_heads);
  }
  if (config.head_dim % 2 != 0 && !family_of(config).learned_positions)
    throw InvalidArgument("model: head_dim ", config.head_dim, " is odd");
  const size_t windowed = config.windowed_layers.size();
  if (windowed != 0 && static_cast<int64_t>(windowed) != config.num_layers) {
    throw InvalidArgument(
        "model: windowed_layers names ", windowed, " layers, the model has ", config.num_layers);
  }
}

/// Collects the tensors of a model, module by module.
class Layout {
 public:
  explicit Layout(const Family& family) : family_(family) {}

  void linear(const std::string& name, int64_t rows, int64_t columns, bool bias) {
    out.push_back({name + ".weight", {rows, columns}, Init::kNormal});
    if (bias) out.push_back({name + ".bias", {rows}, Init::kZero});
  }
  void norm(const std::string& name, int64_t size) {
    const bool one_plus = family_.norm == NormKind::kRmsOnePlus;
    out.push_back({name + ".weight", {size}, one_plus ? Init::kZero : Init::kOne});
    if (family_.norm == NormKind::kLayer) out.push_back({name + ".bias", {size}, Init::kZero});
  }

  std::vector<ParameterSpec> out;

 private:
  using Init = ParameterSpec::Init;
  const Family& family_;
};

void add_attention(const ModelConfig& config, const Family& family, Layout& to, const char* layer) {
  const std::string attention = std::string(layer) + "self_attn.";
  const int64_t hidden = config.hidden_size, query = config.num_heads * config.head_dim;
  const int64_t key = config.num_kv_heads * config.head_dim;
  to.linear(attention + "q_proj", query, hidden, config.attention_bias);
  to.linear(attention + "k_proj", key, hidden, config.attention_bias);
  to.linear(attention + "v_proj", key, hidden, config.attention_bias);
  to.linear(attention + "o_proj", hidden, query, config.output_bias);
  if (!family.query_key_norms) return;
  to.norm(attention + "q_norm", config.head_dim);
  to.norm(attention + "k_norm", config.head_dim);
}

void add_mlp(const ModelConfig& config, const Family& family, Layout& to, const char* layer) {
  const std::string mlp = std::string(layer) + "mlp.";
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  if (family.mlp != MlpKind::kGelu) to.linear(mlp + "gate_proj", inner, hidden, config.mlp_bias);
  to.linear(mlp + "up_proj", inner, hidden, config.mlp_bias);
  to.linear(mlp + "down_proj", hidden, inner, config.mlp_bias);
}

}  // namespace

const Family* find_family(std::string_view name) {
  for (const Family& family : kFamilies) {
    if (name == family.name) return &family;
  }
  return nullptr;
}

const Family* find_family_of_architecture(std::string_view architecture) {
  for (const Family& family : kFamilies) {
    if (architecture == family.causal_lm || architecture == family.sequence_classification)
      return &family;
  }
  return nullptr;
}

const Family& family_of(const ModelConfig& config) {
  const Family* family = find_family(config.architecture);
  if (!family) {
    throw InvalidArgument("model: architecture \"",
                          printable(config.architecture),
                          "\" is not known; known are ",
                          known_families());
  }
  return *family;
}

std::string known_architectures() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) {
    names.insert(names.end(), {family.causal_lm, family.sequence_classification});
  }
  return join(names, ", ");
}

std::string known_families() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) names.push_back(family.name);
  return join(names, ", ");
}

std::vector<ParameterSpec> parameter_layout(const ModelConfig& config, bool with_head) {
  const Family& family = family_of(config);
  check_sizes(config);
  Layout to(family);
  const int64_t hidden = config.hidden_size;
  to.linear("model.embed_tokens", config.vocab_size, hidden, false);
  if (family.learned_positions)
    to.linear("model.embed_positions", config.max_positions, hidden, false);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    to.norm(layer + "input_layernorm", hidden);
    add_attention(config, family, to, layer.c_str());
    to.norm(layer + "post_attention_layernorm", hidden);
    if (family.output_norms) {
      to.norm(layer + "pre_feedforward_layernorm", hidden);
      to.norm(layer + "post_feedforward_layernorm", hidden);
    }
    add_mlp(config, family, to, layer.c_str());
  }
  to.norm("model.norm", hidden);
  if (with_head && !config.tie_embeddings) to.linear("lm_head", config.vocab_size, hidden, false);
  return std::move(to.out);
}

}  // namespace praetor
