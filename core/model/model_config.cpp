#include "core/model/model_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/model/config_text.h"
#include "core/model/families.h"
#include "core/model/json_file.h"
#include "core/model/json_keys.h"
#include "core/model/rope_json.h"

namespace praetor {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr int64_t kMany = int64_t{1} << 24;
constexpr int64_t kMaxPositions = int64_t{1} << 21;

/// A key with which some model computes something else, and the value with which it does not.
struct Neutral {
  const char* key;
  json value;
};

/// null is neutral always.
std::vector<Neutral> neutral_values(const Family& family) {
  std::vector<Neutral> out = {
      {"add_cross_attention", false},
      {"alibi", false},
      {"attention_multiplier", 1.0},
      {"embedding_multiplier", 1.0},
      {"logit_scale", 1.0},
      {"logits_scaling", 1.0},
      {"num_experts", 0},
      {"num_local_experts", 0},
      {"parallel_attn", false},
      {"residual_multiplier", 1.0},
      {"rope_interleaved", false},
      {"scale_attn_by_inverse_layer_idx", false},
      {"scale_attn_weights", true},
      {"use_bidirectional_attention", false},
      {"use_mrope", false},
      {"use_parallel_residual", false},
  };
  if (!family.query_key_norms) out.push_back({"use_qk_norm", false});
  if (!family.reads_attention_bias) out.push_back({"attention_bias", false});
  if (!family.reads_mlp_bias) out.push_back({"mlp_bias", false});
  if (family.default_query_scalar == 0) out.push_back({"query_pre_attn_scalar", nullptr});
  if (!family.reads_attention_softcap) out.push_back({"attn_logit_softcapping", nullptr});
  if (!family.reads_logit_softcap) out.push_back({"final_logit_softcapping", nullptr});
  return out;
}

bool is_tanh_gelu(const std::string& name) {
  return name == "gelu_new" || name == "gelu_pytorch_tanh";
}

bool same_activation(const std::string& one, const std::string& other) {
  const auto silu = [](const std::string& name) { return name == "silu" || name == "swish"; };
  return one == other || (silu(one) && silu(other)) || (is_tanh_gelu(one) && is_tanh_gelu(other));
}

/// What a model of the family would compute with other operations than ours.
void refuse_variants(const JsonKeys& in, const Family& family) {
  const char* key = family.keys.activation;
  const std::string activation = in.word(key, family.activation);
  if (!same_activation(activation, family.activation)) {
    in.fail(key, '"', printable(activation), "\" is not supported; ", family.activation, " is");
  }
  if (in.has("quantization_config"))
    in.fail("quantization_config", "quantized weights are not supported");
  for (const Neutral& neutral : neutral_values(family)) {
    if (!in.has(neutral.key) || in.at(neutral.key) == neutral.value) continue;
    in.fail(neutral.key,
            JsonKeys::text(in.at(neutral.key)),
            " is not supported for ",
            family.name,
            "; ",
            JsonKeys::text(neutral.value),
            " is");
  }
}

/// layer_types: true where a layer has a window.
std::vector<bool> read_layer_types(const JsonKeys& in, int64_t layers) {
  const json& list = in.at("layer_types");
  if (!list.is_array()) in.fail("layer_types", "is not a list");
  if (static_cast<int64_t>(list.size()) != layers) {
    in.fail("layer_types", "names ", list.size(), " layers, num_hidden_layers is ", layers);
  }
  std::vector<bool> out;
  for (const json& type : list) {
    if (type != "full_attention" && type != "sliding_attention") {
      in.fail("layer_types",
              JsonKeys::text(type),
              " is not supported; full_attention and sliding_attention are");
    }
    out.push_back(type == "sliding_attention");
  }
  return out;
}

/// The window, 0 for none. An explicit null means none, an absent key the family's default.
int64_t read_window(const JsonKeys& in, const Family& family) {
  if (family.windows == WindowRule::kNone) return 0;
  if (family.windows == WindowRule::kUpper && !in.flag("use_sliding_window", false)) return 0;
  if (in.has("sliding_window")) return in.size("sliding_window", int64_t{1} << 40);
  return in.present("sliding_window") ? 0 : family.default_window;
}

std::vector<bool> usual_windows(const JsonKeys& in, const Family& family, int64_t layers) {
  std::vector<bool> out(static_cast<size_t>(layers), family.windows == WindowRule::kAll);
  if (family.windows == WindowRule::kUpper) {
    const int64_t first = in.has("max_window_layers") ? in.count("max_window_layers", kMany) : 28;
    for (int64_t i = first; i < layers; ++i) out[static_cast<size_t>(i)] = true;
  }
  if (family.windows == WindowRule::kMixed) {
    int64_t period = family.window_period;
    if (family.local_rope && in.has("sliding_window_pattern"))
      period = in.size("sliding_window_pattern", kMany);
    for (int64_t i = 0; i < layers; ++i) out[static_cast<size_t>(i)] = (i + 1) % period != 0;
  }
  return out;
}

void read_windows(const JsonKeys& in, const Family& family, ModelConfig& out) {
  const int64_t window = read_window(in, family);
  std::vector<bool> layers = usual_windows(in, family, out.num_layers);
  // Where every layer is alike, the list can say nothing else.
  const bool listed = family.windows == WindowRule::kUpper || family.windows == WindowRule::kMixed;
  if (in.has("layer_types")) {
    const std::vector<bool> types = read_layer_types(in, out.num_layers);
    const bool matters = window == 0 || window < out.max_positions;
    if (!listed && matters && types != std::vector<bool>(types.size(), window > 0)) {
      in.fail("layer_types",
              window > 0 ? "\"full_attention\"" : "\"sliding_attention\"",
              " is not supported for ",
              family.name,
              window > 0 ? " with a sliding_window; sliding_attention is" : "; full_attention is");
    }
    if (!listed && !matters) return;
    layers = types;
  } else if (window == 0 && family.windows != WindowRule::kMixed) {
    return;
  }
  if (std::find(layers.begin(), layers.end(), true) == layers.end()) return;
  if (window == 0) in.fail("sliding_window", "is missing, and layers of sliding_attention need it");
  out.sliding_window = window;
  out.windowed_layers = std::move(layers);
}

/// Family, and whether the folder holds a classifier.
std::pair<const Family*, bool> read_architecture(const JsonKeys& in) {
  if (in.has("architectures") && !in.at("architectures").empty()) {
    const json& list = in.at("architectures");
    if (!list.is_array() || !list[0].is_string())
      in.fail("architectures", "is not a list of names");
    const auto name = list[0].get<std::string>();
    const Family* family = find_family_of_architecture(name);
    if (!family) {
      in.fail("architectures",
              '"',
              printable(name),
              "\" is not supported; known are ",
              known_architectures());
    }
    return {family, name == family->sequence_classification};
  }
  const std::string type = in.word("model_type", "");
  const Family* family = find_family(type);
  if (!family) {
    in.fail("architectures",
            "is missing, and model_type \"",
            printable(type),
            "\" is not known; known architectures are ",
            known_architectures());
  }
  return {family, false};
}

void read_sizes(const JsonKeys& in, const Family& family, ModelConfig& out) {
  const ConfigKeys& keys = family.keys;
  out.vocab_size = in.size("vocab_size", kMany);
  out.hidden_size = in.size(keys.hidden_size, kMany);
  out.intermediate_size = !in.has(keys.intermediate_size) && family.intermediate_factor > 0
                              ? family.intermediate_factor * out.hidden_size
                              : in.size(keys.intermediate_size, kMany);
  out.num_layers = in.size(keys.num_layers, 4096);
  out.num_heads = in.size(keys.num_heads, 65536);
  out.num_kv_heads = out.num_heads;
  if (keys.num_kv_heads && in.has(keys.num_kv_heads)) {
    out.num_kv_heads = in.size(keys.num_kv_heads, 65536);
  } else if (keys.num_kv_heads && !in.present(keys.num_kv_heads) && family.default_kv_heads != 0) {
    out.num_kv_heads = family.default_kv_heads;
  }
  if (out.num_heads % out.num_kv_heads != 0) {
    in.fail("num_key_value_heads",
            out.num_kv_heads,
            " does not divide ",
            keys.num_heads,
            " ",
            out.num_heads);
  }
  if (keys.head_dim && in.has(keys.head_dim)) {
    out.head_dim = in.size(keys.head_dim, 65536);
  } else if (family.default_head_dim != 0) {
    out.head_dim = family.default_head_dim;
  } else if (out.hidden_size % out.num_heads != 0) {
    in.fail(
        keys.num_heads, out.num_heads, " does not divide ", keys.hidden_size, " ", out.hidden_size);
  } else {
    out.head_dim = out.hidden_size / out.num_heads;
  }
  if (out.head_dim % 2 != 0 && !family.learned_positions)
    in.fail("head_dim", out.head_dim, " is odd; rotary positions need pairs");
  out.max_positions = in.size(keys.max_positions, kMaxPositions);
}

/// The value of an optional number: absent the default, null none (0).
double optional_number(const JsonKeys& in, const char* key, double missing) {
  return in.present(key) && !in.has(key) ? 0 : in.positive(key, missing);
}

/// Names of `count` labels; none where they are not texts under "0", "1", ...
std::vector<std::string> names_of(const json& id2label, int64_t count) {
  std::vector<std::string> out;
  for (int64_t i = 0; i < count; ++i) {
    const auto found = id2label.find(std::to_string(i));
    if (found == id2label.end() || !found->is_string()) return {};
    out.push_back(found->get<std::string>());
  }
  return out;
}

int64_t read_labels(const JsonKeys& in) {
  if (in.has("num_labels")) return in.size("num_labels", kMany);
  if (!in.has("id2label")) return 2;  // transformers' default
  if (!in.at("id2label").is_object() || in.at("id2label").empty())
    in.fail("id2label", "is not an object of labels");
  return static_cast<int64_t>(in.at("id2label").size());
}

ModelConfig config_from(const json& parsed, const fs::path& file) {
  if (!parsed.is_object()) throw DataError(file.string(), ": must be a JSON object");
  const JsonKeys in(file, "", parsed);
  const auto [found, classifies] = read_architecture(in);
  const Family& family = *found;

  ModelConfig out;
  out.architecture = family.name;
  read_sizes(in, family, out);
  out.norm_eps = in.positive(family.keys.norm_eps, family.default_norm_eps);
  out.initializer_range = in.positive("initializer_range", 0.02);
  out.tie_embeddings = in.flag("tie_word_embeddings", family.default_tied);
  const bool attention_bias = family.reads_attention_bias && in.flag("attention_bias", false);
  out.attention_bias = family.all_biases || family.qkv_bias || attention_bias;
  out.output_bias = family.all_biases || attention_bias;
  out.mlp_bias = family.all_biases || (family.reads_mlp_bias && in.flag("mlp_bias", false));
  refuse_variants(in, family);
  read_windows(in, family, out);
  if (family.default_query_scalar != 0)
    out.query_scalar = in.positive("query_pre_attn_scalar", family.default_query_scalar);
  if (family.reads_attention_softcap) {
    out.attention_softcap =
        optional_number(in, "attn_logit_softcapping", family.default_attention_softcap);
  }
  if (family.reads_logit_softcap) {
    out.logit_softcap =
        optional_number(in, "final_logit_softcapping", family.default_logit_softcap);
  }
  if (!family.learned_positions) read_rotation(in, file, family, out);
  out.bos_token = in.token("bos_token_id");
  out.eos_tokens = in.tokens("eos_token_id");
  out.pad_token = in.token("pad_token_id");
  if (classifies) out.num_labels = read_labels(in);
  if (classifies && in.has("id2label"))
    out.label_names = names_of(in.at("id2label"), out.num_labels);
  return out;
}

}  // namespace

ModelConfig parse_model_config(std::string_view text, const fs::path& where) {
  return config_from(parse_json(text, where), where);
}

ModelConfig ModelConfig::load(const fs::path& folder) {
  const fs::path file = folder / "config.json";
  ModelConfig out = config_from(read_json_file(file, size_t{16} << 20), file);
  std::error_code ignored;
  const fs::path generation = folder / "generation_config.json";
  if (fs::exists(generation, ignored)) {
    const json extra = read_json_file(generation, size_t{16} << 20);
    if (!extra.is_object()) throw DataError(generation.string(), ": must be a JSON object");
    const JsonKeys more(generation, "", extra);
    if (more.has("bos_token_id")) out.bos_token = more.token("bos_token_id");
    if (more.has("eos_token_id")) out.eos_tokens = more.tokens("eos_token_id");
    if (more.has("pad_token_id")) out.pad_token = more.token("pad_token_id");
  }
  return out;
}

namespace {

json softcap_json(double cap) {
  return cap > 0 ? json(cap) : json(nullptr);
}

void write_windows(const ModelConfig& config, const Family& family, nlohmann::ordered_json& out) {
  if (family.windows == WindowRule::kNone) return;
  const bool any = config.sliding_window > 0;
  out["sliding_window"] = any ? json(config.sliding_window) : json(nullptr);
  if (family.windows == WindowRule::kAll) return;
  if (family.windows == WindowRule::kUpper) {
    if (!any) return;
    out["use_sliding_window"] = true;
    const auto& windowed = config.windowed_layers;
    // transformers before layer_types knew the first of them alone.
    out["max_window_layers"] = std::find(windowed.begin(), windowed.end(), true) - windowed.begin();
  }
  json types = json::array();
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const bool windowed = any && config.windowed_layers[static_cast<size_t>(i)];
    types.push_back(windowed ? "sliding_attention" : "full_attention");
  }
  out["layer_types"] = types;
}

void write_labels(const ModelConfig& config, nlohmann::ordered_json& out) {
  const int64_t labels = std::max<int64_t>(config.num_labels, 1);
  const bool named = static_cast<int64_t>(config.label_names.size()) == labels;
  for (int64_t i = 0; i < labels; ++i) {
    const std::string label =
        named ? config.label_names[static_cast<size_t>(i)] : "LABEL_" + std::to_string(i);
    out["id2label"][std::to_string(i)] = label;
    out["label2id"][label] = i;
  }
}

}  // namespace

std::string ModelConfig::to_json(const std::string& head) const {
  const Family& family = family_of(*this);
  const ConfigKeys& keys = family.keys;
  const bool classifies = head == "sequence_classification";
  if (!classifies && head != "causal_lm") {
    throw InvalidArgument(
        "model: head \"", head, "\" is neither causal_lm nor sequence_classification");
  }
  nlohmann::ordered_json out;
  out["architectures"] = {classifies ? family.sequence_classification : family.causal_lm};
  out["model_type"] = family.name;
  out["vocab_size"] = vocab_size;
  out[keys.hidden_size] = hidden_size;
  out[keys.intermediate_size] = intermediate_size;
  out[keys.num_layers] = num_layers;
  out[keys.num_heads] = num_heads;
  if (keys.num_kv_heads) out[keys.num_kv_heads] = num_kv_heads;
  if (keys.head_dim) out[keys.head_dim] = head_dim;
  out[keys.max_positions] = max_positions;
  out[keys.activation] = family.activation;
  out[keys.norm_eps] = norm_eps;
  out["initializer_range"] = initializer_range;
  if (!family.learned_positions) write_rotation(*this, family, out);
  if (family.reads_attention_bias) out["attention_bias"] = attention_bias;
  if (family.reads_mlp_bias) out["mlp_bias"] = mlp_bias;
  write_windows(*this, family, out);
  if (family.default_query_scalar != 0) {
    const double scalar = query_scalar > 0 ? query_scalar : static_cast<double>(head_dim);
    const auto whole = static_cast<int64_t>(scalar);
    out["query_pre_attn_scalar"] =
        static_cast<double>(whole) == scalar ? json(whole) : json(scalar);
  }
  if (family.reads_attention_softcap)
    out["attn_logit_softcapping"] = softcap_json(attention_softcap);
  if (family.reads_logit_softcap) out["final_logit_softcapping"] = softcap_json(logit_softcap);
  out["tie_word_embeddings"] = tie_embeddings;
  out["bos_token_id"] = bos_token ? json(*bos_token) : json(nullptr);
  out["eos_token_id"] = eos_tokens.empty()       ? json(nullptr)
                        : eos_tokens.size() == 1 ? json(eos_tokens[0])
                                                 : json(eos_tokens);
  out["pad_token_id"] = pad_token ? json(*pad_token) : json(nullptr);
  if (classifies) write_labels(*this, out);
  out["dtype"] = "float32";
  out["torch_dtype"] = "float32";
  return out.dump(2) + "\n";
}

int64_t ModelConfig::window_of(int64_t i) const {
  if (windowed_layers.empty() || !windowed_layers[static_cast<size_t>(i)]) return 0;
  return sliding_window < max_positions ? sliding_window : 0;
}

int64_t ModelConfig::switch_length() const {
  const bool switches = rope.scaling == "longrope" && rope.original_max_positions < max_positions;
  return switches ? rope.original_max_positions : 0;
}

int64_t ModelConfig::parameter_count() const {
  int64_t count = 0;
  for (const ParameterSpec& spec : parameter_layout(*this)) {
    int64_t size = 1;
    for (const int64_t dim : spec.shape) size *= dim;
    count += size;
  }
  return count;
}

}  // namespace praetor
