#include "core/model/families.h"

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

namespace {

constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM", "LlamaForSequenceClassification", true, false, 0, 0},
    {"mistral", "MistralForCausalLM", "MistralForSequenceClassification", false, false, 8, 4096},
    {"qwen2", "Qwen2ForCausalLM", "Qwen2ForSequenceClassification", false, true, 32, 4096},
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
  check_size("head_dim", config.head_dim, 2, 65536);
  check_size("max_positions", config.max_positions, 1, int64_t{1} << 21);
  if (config.num_heads % config.num_kv_heads != 0) {
    throw InvalidArgument("model: num_heads ",
                          config.num_heads,
                          " is not a multiple of num_kv_heads ",
                          config.num_kv_heads);
  }
  if (config.head_dim % 2 != 0)
    throw InvalidArgument("model: head_dim ", config.head_dim, " is odd");
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

std::string known_architectures() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) {
    names.insert(names.end(), {family.causal_lm, family.sequence_classification});
  }
  return join(names, ", ");
}

std::vector<ParameterSpec> parameter_layout(const ModelConfig& config, bool with_head) {
  check_sizes(config);
  using Init = ParameterSpec::Init;
  std::vector<ParameterSpec> out;
  const int64_t hidden = config.hidden_size;
  const auto linear = [&](const std::string& name, int64_t rows, int64_t columns, bool bias) {
    out.push_back({name + ".weight", {rows, columns}, Init::kNormal});
    if (bias) out.push_back({name + ".bias", {rows}, Init::kZero});
  };
  const auto norm = [&](const std::string& name) {
    out.push_back({name + ".weight", {hidden}, Init::kOne});
  };

  out.push_back({"model.embed_tokens.weight", {config.vocab_size, hidden}, Init::kNormal});
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    const int64_t query = config.num_heads * config.head_dim;
    const int64_t key = config.num_kv_heads * config.head_dim;
    norm(layer + "input_layernorm");
    linear(layer + "self_attn.q_proj", query, hidden, config.attention_bias);
    linear(layer + "self_attn.k_proj", key, hidden, config.attention_bias);
    linear(layer + "self_attn.v_proj", key, hidden, config.attention_bias);
    linear(layer + "self_attn.o_proj", hidden, query, config.output_bias);
    norm(layer + "post_attention_layernorm");
    linear(layer + "mlp.gate_proj", config.intermediate_size, hidden, config.mlp_bias);
    linear(layer + "mlp.up_proj", config.intermediate_size, hidden, config.mlp_bias);
    linear(layer + "mlp.down_proj", hidden, config.intermediate_size, config.mlp_bias);
  }
  norm("model.norm");
  if (with_head && !config.tie_embeddings) linear("lm_head", config.vocab_size, hidden, false);
  return out;
}

}  // namespace praetor
