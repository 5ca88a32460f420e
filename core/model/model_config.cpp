#include "core/model/model_config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/model/config_text.h"
#include "core/model/families.h"
#include "core/model/json_file.h"

namespace praetor {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

/// Reads typed keys of one JSON object; a key that is null counts as absent, as in transformers.
class Keys {
 public:
  Keys(const fs::path& file, std::string prefix, const json& object)
      : file_(file), prefix_(std::move(prefix)), object_(object) {}

  template <typename... Args>
  [[noreturn]] void fail(const char* key, const Args&... args) const {
    throw DataError(file_.string(), ": ", prefix_, key, ": ", args...);
  }
  bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }
  bool present(const char* key) const { return object_.contains(key); }  ///< null included
  const json& at(const char* key) const {
    if (!has(key)) fail(key, "is missing");
    return object_[key];
  }
  int64_t size(const char* key, int64_t high) const {
    const json& value = at(key);
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t(high)) ||
        value.get<int64_t>() < 1 || value.get<int64_t>() > high) {
      fail(key, text(value), " is not a whole number from 1 to ", high);
    }
    return value.get<int64_t>();
  }
  double positive(const char* key, double missing) const {
    if (!has(key)) return missing;
    const json& value = at(key);
    if (!value.is_number() || !(value.get<double>() > 0) || !std::isfinite(value.get<double>())) {
      fail(key, text(value), " is not a number above 0");
    }
    return value.get<double>();
  }
  double positive(const char* key) const {
    at(key);
    return positive(key, 0);
  }
  bool flag(const char* key, bool missing) const {
    if (!has(key)) return missing;
    if (!at(key).is_boolean()) fail(key, text(at(key)), " is neither true nor false");
    return at(key).get<bool>();
  }
  std::string word(const char* key, const std::string& missing) const {
    if (!has(key)) return missing;
    if (!at(key).is_string()) fail(key, text(at(key)), " is not a string");
    return at(key).get<std::string>();
  }
  /// A token id, or a list of them; negative ids (old writers' "none") are left out.
  std::vector<int64_t> tokens(const char* key) const {
    std::vector<int64_t> out;
    if (!has(key)) return out;
    const json list = at(key).is_array() ? at(key) : json::array({at(key)});
    for (const json& value : list) {
      if (!value.is_number_integer()) fail(key, text(value), " is not a token id");
      if (value.get<int64_t>() >= 0) out.push_back(value.get<int64_t>());
    }
    return out;
  }
  std::optional<int64_t> token(const char* key) const {
    const auto all = tokens(key);
    return all.empty() ? std::nullopt : std::optional(all.front());
  }
  static std::string text(const json& value) {
    return printable(value.dump(-1, ' ', false, json::error_handler_t::replace));
  }

 private:
  const fs::path& file_;
  std::string prefix_;
  const json& object_;
};

constexpr int64_t kMaxPositions = int64_t{1} << 21;

double yarn_mscale(double scale, double mscale) {
  return scale <= 1 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
}

/// transformers' precedence: rope_scaling before rope_parameters, a theta inside before the one
/// outside.
RopeConfig read_rope(const fs::path& file, const Keys& top, int64_t max_positions) {
  RopeConfig rope;
  rope.theta = top.positive("rope_theta", rope.theta);
  const char* section = nullptr;
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (!top.has(key)) continue;
    if (!top.at(key).is_object()) top.fail(key, Keys::text(top.at(key)), " is not an object");
    if (!top.at(key).empty()) section = key;
  }
  if (top.positive("partial_rotary_factor", 1.0) != 1.0) {
    top.fail("partial_rotary_factor",
             "only 1.0 is supported: every dimension of a head is rotated");
  }
  if (!section) return rope;

  const Keys in(file, std::string(section) + ".", top.at(section));
  rope.theta = in.positive("rope_theta", rope.theta);
  rope.scaling = in.word("rope_type", in.word("type", "default"));
  if (in.positive("partial_rotary_factor", 1.0) != 1.0) {
    in.fail("partial_rotary_factor", "only 1.0 is supported: every dimension of a head is rotated");
  }
  if (rope.scaling == "default") return rope;
  if (rope.scaling == "linear" || rope.scaling == "dynamic") {
    rope.factor = in.positive("factor");
    return rope;
  }
  if (rope.scaling != "llama3" && rope.scaling != "yarn") {
    in.fail(in.has("rope_type") ? "rope_type" : "type",
            '"',
            printable(rope.scaling),
            "\" is not one of default, linear, dynamic, llama3, yarn");
  }
  rope.original_max_positions = max_positions;
  if (in.has("original_max_position_embeddings")) {
    rope.original_max_positions = in.size("original_max_position_embeddings", kMaxPositions);
  }
  if (top.has("original_max_position_embeddings")) {
    rope.original_max_positions = top.size("original_max_position_embeddings", kMaxPositions);
  }
  if (rope.scaling == "llama3") {
    rope.factor = in.positive("factor");
    rope.low_freq_factor = in.positive("low_freq_factor");
    rope.high_freq_factor = in.positive("high_freq_factor");
    if (rope.high_freq_factor <= rope.low_freq_factor) {
      in.fail("high_freq_factor",
              rope.high_freq_factor,
              " is not above low_freq_factor ",
              rope.low_freq_factor);
    }
    return rope;
  }
  const double stretch =
      static_cast<double>(max_positions) / static_cast<double>(rope.original_max_positions);
  rope.factor = in.positive("factor", stretch);
  rope.beta_fast = in.positive("beta_fast", rope.beta_fast);
  rope.beta_slow = in.positive("beta_slow", rope.beta_slow);
  rope.truncate = in.flag("truncate", true);
  rope.attention_factor = yarn_mscale(rope.factor, 1.0);
  if (in.has("mscale") && in.has("mscale_all_dim")) {
    rope.attention_factor = yarn_mscale(rope.factor, in.positive("mscale")) /
                            yarn_mscale(rope.factor, in.positive("mscale_all_dim"));
  }
  rope.attention_factor = in.positive("attention_factor", rope.attention_factor);
  return rope;
}

json rope_json(const RopeConfig& rope, int64_t max_positions) {
  json out = {{"rope_type", rope.scaling}, {"rope_theta", rope.theta}};
  if (rope.scaling == "default") return out;
  out["factor"] = rope.factor;
  if (rope.scaling == "llama3" || rope.scaling == "yarn") {
    out["original_max_position_embeddings"] =
        rope.original_max_positions > 0 ? rope.original_max_positions : max_positions;
  }
  if (rope.scaling == "llama3") {
    out["low_freq_factor"] = rope.low_freq_factor;
    out["high_freq_factor"] = rope.high_freq_factor;
  }
  if (rope.scaling == "yarn") {
    out["beta_fast"] = rope.beta_fast;
    out["beta_slow"] = rope.beta_slow;
    out["attention_factor"] = rope.attention_factor;
    out["truncate"] = rope.truncate;
  }
  return out;
}

/// What the family would compute differently from full causal attention with plain weights.
void refuse_variants(const Keys& in, const Family& family, int64_t max_positions) {
  const std::string activation = in.word("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    in.fail("hidden_act", '"', printable(activation), "\" is not supported; silu is");
  }
  if (in.has("quantization_config"))
    in.fail("quantization_config", "quantized weights are not supported");
  if (in.has("layer_types")) {
    if (!in.at("layer_types").is_array()) in.fail("layer_types", "is not a list");
    for (const json& type : in.at("layer_types")) {
      if (type != "full_attention")
        in.fail("layer_types", Keys::text(type), " is not supported; full_attention is");
    }
  }
  const std::string name = family.name;
  if (name == "llama" || (name == "qwen2" && !in.flag("use_sliding_window", false))) return;
  // An explicit null means no window; an absent key means the family's default.
  int64_t window = 0;
  if (in.has("sliding_window")) {
    window = in.size("sliding_window", int64_t{1} << 40);
  } else if (!in.present("sliding_window")) {
    window = family.default_sliding_window;
  }
  if (window != 0 && window < max_positions) {
    in.fail("sliding_window",
            window,
            " is below max_position_embeddings ",
            max_positions,
            "; only full attention is supported: set it to null, or max_position_embeddings to ",
            window);
  }
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

ModelConfig config_from(const json& parsed, const fs::path& file) {
  if (!parsed.is_object()) throw DataError(file.string(), ": must be a JSON object");
  const Keys in(file, "", parsed);

  const Family* family = nullptr;
  bool classifies = false;
  if (in.has("architectures") && !in.at("architectures").empty()) {
    const json& list = in.at("architectures");
    if (!list.is_array() || !list[0].is_string())
      in.fail("architectures", "is not a list of names");
    const auto name = list[0].get<std::string>();
    family = find_family_of_architecture(name);
    if (!family) {
      in.fail("architectures",
              '"',
              printable(name),
              "\" is not supported; known are ",
              known_architectures());
    }
    classifies = name == family->sequence_classification;
  } else {
    const std::string type = in.word("model_type", "");
    family = find_family(type);
    if (!family) {
      in.fail("architectures",
              "is missing, and model_type \"",
              printable(type),
              "\" is not known; known architectures are ",
              known_architectures());
    }
  }

  constexpr int64_t kMany = int64_t{1} << 24;
  ModelConfig out;
  out.architecture = family->name;
  out.vocab_size = in.size("vocab_size", kMany);
  out.hidden_size = in.size("hidden_size", kMany);
  out.intermediate_size = in.size("intermediate_size", kMany);
  out.num_layers = in.size("num_hidden_layers", 4096);
  out.num_heads = in.size("num_attention_heads", 65536);
  out.num_kv_heads = out.num_heads;
  if (in.has("num_key_value_heads")) {
    out.num_kv_heads = in.size("num_key_value_heads", 65536);
  } else if (!in.present("num_key_value_heads") && family->default_kv_heads != 0) {
    out.num_kv_heads = family->default_kv_heads;
  }
  if (out.num_heads % out.num_kv_heads != 0) {
    in.fail("num_key_value_heads",
            out.num_kv_heads,
            " does not divide num_attention_heads ",
            out.num_heads);
  }
  if (in.has("head_dim")) {
    out.head_dim = in.size("head_dim", 65536);
  } else if (out.hidden_size % out.num_heads != 0) {
    in.fail("num_attention_heads", out.num_heads, " does not divide hidden_size ", out.hidden_size);
  } else {
    out.head_dim = out.hidden_size / out.num_heads;
  }
  if (out.head_dim % 2 != 0)
    in.fail("head_dim", out.head_dim, " is odd; rotary positions need pairs");
  out.max_positions = in.size("max_position_embeddings", kMaxPositions);
  out.norm_eps = in.positive("rms_norm_eps", 1e-6);
  out.initializer_range = in.positive("initializer_range", 0.02);
  out.tie_embeddings = in.flag("tie_word_embeddings", false);
  out.attention_bias =
      family->qkv_bias || (family->reads_bias_keys && in.flag("attention_bias", false));
  out.output_bias = family->reads_bias_keys && out.attention_bias;
  out.mlp_bias = family->reads_bias_keys && in.flag("mlp_bias", false);
  refuse_variants(in, *family, out.max_positions);
  out.rope = read_rope(file, in, out.max_positions);
  out.bos_token = in.token("bos_token_id");
  out.eos_tokens = in.tokens("eos_token_id");
  out.pad_token = in.token("pad_token_id");
  if (classifies) {
    out.num_labels = 2;  // transformers' default
    if (in.has("num_labels")) {
      out.num_labels = in.size("num_labels", kMany);
    } else if (in.has("id2label")) {
      if (!in.at("id2label").is_object() || in.at("id2label").empty())
        in.fail("id2label", "is not an object of labels");
      out.num_labels = static_cast<int64_t>(in.at("id2label").size());
    }
    if (in.has("id2label")) out.label_names = names_of(in.at("id2label"), out.num_labels);
  }
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
    const Keys more(generation, "", extra);
    if (more.has("bos_token_id")) out.bos_token = more.token("bos_token_id");
    if (more.has("eos_token_id")) out.eos_tokens = more.tokens("eos_token_id");
    if (more.has("pad_token_id")) out.pad_token = more.token("pad_token_id");
  }
  return out;
}

std::string ModelConfig::to_json(const std::string& head) const {
  const Family* family = find_family(architecture);
  if (!family) throw InvalidArgument("model: architecture \"", architecture, "\" is not known");
  const bool classifies = head == "sequence_classification";
  if (!classifies && head != "causal_lm") {
    throw InvalidArgument(
        "model: head \"", head, "\" is neither causal_lm nor sequence_classification");
  }
  nlohmann::ordered_json out;
  out["architectures"] = {classifies ? family->sequence_classification : family->causal_lm};
  out["model_type"] = family->name;
  out["vocab_size"] = vocab_size;
  out["hidden_size"] = hidden_size;
  out["intermediate_size"] = intermediate_size;
  out["num_hidden_layers"] = num_layers;
  out["num_attention_heads"] = num_heads;
  out["num_key_value_heads"] = num_kv_heads;
  out["head_dim"] = head_dim;
  out["max_position_embeddings"] = max_positions;
  out["hidden_act"] = "silu";
  out["rms_norm_eps"] = norm_eps;
  out["initializer_range"] = initializer_range;
  // transformers 5 reads rope_parameters, 4.x the two others.
  const json parameters = rope_json(rope, max_positions);
  out["rope_parameters"] = parameters;
  out["rope_theta"] = rope.theta;
  out["rope_scaling"] = rope.scaling == "default" ? json(nullptr) : parameters;
  if (family->reads_bias_keys) {
    out["attention_bias"] = attention_bias;
    out["mlp_bias"] = mlp_bias;
  }
  if (family->default_sliding_window != 0) out["sliding_window"] = nullptr;
  out["tie_word_embeddings"] = tie_embeddings;
  out["bos_token_id"] = bos_token ? json(*bos_token) : json(nullptr);
  out["eos_token_id"] = eos_tokens.empty()       ? json(nullptr)
                        : eos_tokens.size() == 1 ? json(eos_tokens[0])
                                                 : json(eos_tokens);
  out["pad_token_id"] = pad_token ? json(*pad_token) : json(nullptr);
  if (classifies) {
    const int64_t labels = num_labels > 0 ? num_labels : 1;
    for (int64_t i = 0; i < labels; ++i) {
      const std::string label = static_cast<int64_t>(label_names.size()) == labels
                                    ? label_names[static_cast<size_t>(i)]
                                    : "LABEL_" + std::to_string(i);
      out["id2label"][std::to_string(i)] = label;
      out["label2id"][label] = i;
    }
  }
  out["dtype"] = "float32";
  out["torch_dtype"] = "float32";
  return out.dump(2) + "\n";
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
