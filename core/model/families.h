#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/model_config.h"

namespace praetor {

/// A family of models that share the Llama-shaped decoder and differ in what this row says.
struct Family {
  const char* name;       ///< ModelConfig::architecture, and config.json's model_type
  const char* causal_lm;  ///< config.json's architectures[0]
  const char*
      sequence_classification;  ///< the same, with `score.weight` in place of the language head
  bool reads_bias_keys;      ///< attention_bias (q, k, v, o) and mlp_bias are keys of config.json
  bool qkv_bias;             ///< q, k, v always have biases
  int64_t default_kv_heads;  ///< where num_key_value_heads is absent; 0: as many as heads
  int64_t default_sliding_window;  ///< where sliding_window is absent; 0: none
};

/// nullptr for an unknown name.
const Family* find_family(std::string_view name);
const Family* find_family_of_architecture(std::string_view architecture);
/// "LlamaForCausalLM, ...": for messages.
std::string known_architectures();

/// One trainable tensor of a model.
struct ParameterSpec {
  enum class Init { kNormal, kOne, kZero };
  std::string name;  ///< Hugging Face's
  std::vector<int64_t> shape;
  Init init = Init::kNormal;
};

/// Every tensor of a model in a fixed order: embedding, layers, final norm, and `lm_head.weight`
/// when it is wanted and not tied. @throws InvalidArgument when the sizes cannot make a model,
/// naming the field, the value and the bound.
std::vector<ParameterSpec> parameter_layout(const ModelConfig& config, bool with_head = true);

}  // namespace praetor
