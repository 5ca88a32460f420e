#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace praetor {

/// Rotary position embedding and its scalings, as transformers' modeling_rope_utils computes them.
struct RopeConfig {
  double theta = 10000.0;
  std::string scaling =
      "default";  ///< default, linear, dynamic, llama3, yarn, longrope; others are refused by name
  double factor = 1.0;
  double low_freq_factor = 1.0;        ///< llama3
  double high_freq_factor = 4.0;       ///< llama3
  int64_t original_max_positions = 0;  ///< llama3, yarn, dynamic, longrope; 0: max_positions
  double beta_fast = 32.0;             ///< yarn
  double beta_slow = 1.0;              ///< yarn
  double attention_factor =
      1.0;  ///< multiplies cos and sin (yarn, longrope; resolved from factor and mscale on loading)
  bool truncate = true;              ///< yarn: round the ramp's ends to whole dimensions
  std::vector<double> short_factor;  ///< longrope: divides the frequencies of sequences up to
                                     ///< original_max_positions tokens
  std::vector<double> long_factor;   ///< longrope: of longer ones
  double partial = 1.0;              ///< share of a head's dimensions that is rotated, the first
};

/// One description for every family; config.json of a Hugging Face folder in and out.
struct ModelConfig {
  std::string architecture = "llama";  ///< family, a row of the table in families.cpp
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 0;  ///< longest sequence, tokens
  double norm_eps = 1e-5;
  RopeConfig rope;
  std::optional<RopeConfig> local_rope;  ///< of layers with a window, where it differs
  int64_t sliding_window = 0;         ///< keys that a layer with a window sees; 0: no layer has one
  std::vector<bool> windowed_layers;  ///< one a layer; empty: none has a window
  double query_scalar = 0;            ///< scores are divided by its square root; 0: head_dim
  double attention_softcap = 0;       ///< scores x become c tanh(x / c) of this c; 0: they do not
  double logit_softcap = 0;           ///< the same of logits
  bool tie_embeddings = false;
  bool attention_bias = false;  ///< q, k, v (and o where the family says so)
  bool output_bias = false;     ///< o_proj
  bool mlp_bias = false;
  double initializer_range = 0.02;
  std::optional<int64_t> bos_token;
  std::vector<int64_t> eos_tokens;  ///< config.json, overruled by generation_config.json
  std::optional<int64_t> pad_token;
  int64_t num_labels =
      0;  ///< > 0: a sequence-classification folder with `score.weight` [num_labels, hidden]
  std::vector<std::string> label_names;  ///< [num_labels] id2label; empty where it is not given

  /// Reads DIR/config.json (rope_parameters of transformers 5, rope_theta and rope_scaling of older
  /// ones) and DIR/generation_config.json. @throws MissingInput; DataError naming file and key for
  /// anything unusable.
  static ModelConfig load(const std::filesystem::path& folder);
  /// As config.json that transformers loads (4.x and 5.x). `with_head`: "causal_lm" or
  /// "sequence_classification".
  std::string to_json(const std::string& head = "causal_lm") const;
  /// Keys that layer `i` sees, its own position's among them; 0: all.
  int64_t window_of(int64_t i) const;
  /// A sequence of more tokens than this is rotated by other factors from its first token on, so
  /// that keys computed before are of no use to it (longrope); 0: there is no such length.
  int64_t switch_length() const;
  /// Number of parameters of the backbone and the language head.
  int64_t parameter_count() const;
};

}  // namespace praetor
