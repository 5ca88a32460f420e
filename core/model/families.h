#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/model_config.h"

namespace praetor {

/// What a norm computes: RMS norm with weight w, the same with weight 1 + w, LayerNorm with a bias.
enum class NormKind : uint8_t { kRms, kRmsOnePlus, kLayer };
/// down(silu(gate x) * up x), down(gelu(gate x) * up x), down(gelu(up x)); the gelu of tanh.
enum class MlpKind : uint8_t { kSwiglu, kGeglu, kGelu };
/// Which layers see a window of the latest keys alone.
enum class WindowRule : uint8_t {
  kNone,   ///< no layer; a key `sliding_window` says nothing
  kAll,    ///< every layer, where `sliding_window` is a number
  kUpper,  ///< with use_sliding_window: layers from max_window_layers up, or as layer_types says
  kMixed,  ///< all but each `window_period`-th layer, or as layer_types says
};

/// Names of config.json's keys that differ between families.
struct ConfigKeys {
  const char* hidden_size = "hidden_size";
  const char* intermediate_size = "intermediate_size";
  const char* num_layers = "num_hidden_layers";
  const char* num_heads = "num_attention_heads";
  const char* num_kv_heads = "num_key_value_heads";  ///< nullptr: as many as heads
  const char* head_dim = "head_dim";                 ///< nullptr: hidden_size / num_heads
  const char* max_positions = "max_position_embeddings";
  const char* norm_eps = "rms_norm_eps";
  const char* activation = "hidden_act";
};

/// One module of a stored folder that is not stored as the model holds it: its tensors are those of
/// `modules` end to end (output rows), the weight transposed where it says so. '#' stands for the
/// layer's number.
struct StoredModule {
  const char* name;
  const char* modules[3];  ///< the rest nullptr
  bool transposed = false;
};

/// One row of the table of families: what its blocks compute, how its folders name and lay out the
/// weights, and what its config.json means. The forward pass, the reader and the writer ask the row
/// and nothing else, so that a family is a row and, where its folders need one, a map of names.
struct Family {
  const char* name = "";       ///< ModelConfig::architecture, and config.json's model_type
  const char* causal_lm = "";  ///< config.json's architectures[0]
  const char* sequence_classification =
      "";  ///< the same, with `score.weight` in place of the language head

  // What its blocks compute.
  NormKind norm = NormKind::kRms;
  MlpKind mlp = MlpKind::kSwiglu;
  bool output_norms = false;       ///< attention and MLP are normed again before they are added
  bool query_key_norms = false;    ///< each head's query and key are normed before they are rotated
  bool learned_positions = false;  ///< an embedding of positions in place of rotation
  bool scaled_embedding = false;   ///< embeddings times sqrt(hidden_size)
  bool all_biases = false;         ///< every linear layer but the head has one
  bool qkv_bias = false;           ///< q, k, v always have biases

  // How its folders lay out the weights; what no row names is stored as it is.
  std::span<const StoredModule> stored;
  const char* optional_prefix = "";  ///< of all names, left out by some writers

  // What its config.json means.
  ConfigKeys keys;
  const char* activation = "silu";    ///< the one it may name
  bool reads_attention_bias = false;  ///< attention_bias: q, k, v and o
  bool reads_mlp_bias = false;
  bool longrope = false;    ///< partial_rotary_factor and rope_scaling of type longrope are known
  bool local_rope = false;  ///< layers with a window have a rotation of their own
  WindowRule windows = WindowRule::kNone;
  int64_t window_period = 0;
  int64_t default_window = 0;       ///< where sliding_window is absent; 0: none
  int64_t intermediate_factor = 0;  ///< intermediate_size by hidden_size where absent; 0: required
  int64_t default_kv_heads = 0;     ///< where num_key_value_heads is absent; 0: as many as heads
  int64_t default_head_dim = 0;     ///< where head_dim is absent; 0: hidden_size / num_heads
  double default_norm_eps = 1e-6;
  double default_theta = 10000.0;
  double default_query_scalar = 0;       ///< of query_pre_attn_scalar; 0: no such key
  double default_attention_softcap = 0;  ///< of attn_logit_softcapping, where absent
  double default_logit_softcap = 0;      ///< of final_logit_softcapping, where absent
  bool reads_attention_softcap = false;
  bool reads_logit_softcap = false;
  bool default_tied = false;  ///< tie_word_embeddings
};

/// nullptr for an unknown name.
const Family* find_family(std::string_view name);
const Family* find_family_of_architecture(std::string_view architecture);
/// The family of a config. @throws InvalidArgument naming the architecture and those that are known
const Family& family_of(const ModelConfig& config);
/// "LlamaForCausalLM, ...": for messages.
std::string known_architectures();
/// "llama, ...".
std::string known_families();

/// One trainable tensor of a model.
struct ParameterSpec {
  enum class Init { kNormal, kOne, kZero };
  std::string name;  ///< Hugging Face's name in a Llama folder, or in that manner
  std::vector<int64_t> shape;
  Init init = Init::kNormal;
};

/// Every tensor of a model in a fixed order: embedding, layers, final norm, and `lm_head.weight`
/// when it is wanted and not tied. Every family's tensors have Llama's names and layout (linear
/// weights [out, in], q, k, v apart); stored_layout says how a folder holds them.
/// @throws InvalidArgument when the sizes cannot make a model, naming the field, the value and the
/// bound.
std::vector<ParameterSpec> parameter_layout(const ModelConfig& config, bool with_head = true);

}  // namespace praetor
