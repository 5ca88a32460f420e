#include "core/model/rope_json.h"

#include <cmath>
#include <string>

#include "core/model/rope.h"

namespace praetor {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr int64_t kMaxPositions = int64_t{1} << 21;

double yarn_mscale(double scale, double mscale) {
  return scale <= 1 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
}

double longrope_attention_factor(double factor, int64_t original) {
  if (factor <= 1) return 1.0;
  return std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(original)));
}

double stretch(const ModelConfig& config, const RopeConfig& rope) {
  return static_cast<double>(config.max_positions) /
         static_cast<double>(rope.original_max_positions);
}

/// One section of config.json and what stands around it.
class RopeReader {
 public:
  RopeReader(const JsonKeys& top,
             const JsonKeys& section,
             const Family& family,
             const ModelConfig& config)
      : top_(top), in_(section), family_(family), config_(config) {}

  /// `rope` as it is where the section says nothing.
  RopeConfig read(RopeConfig rope) const {
    rope.theta = in_.positive("rope_theta", rope.theta);
    rope.partial = in_.positive("partial_rotary_factor", rope.partial);
    check_partial(in_, rope);
    rope.scaling = in_.word("rope_type", in_.word("type", "default"));
    if (family_.longrope && (rope.scaling == "su" || rope.scaling == "yarn"))
      rope.scaling = "longrope";  // its names in early folders
    if (rope.scaling == "default") return rope;
    if (rope.scaling == "linear" || rope.scaling == "dynamic") {
      rope.factor = in_.positive("factor");
      return rope;
    }
    const bool longrope = family_.longrope && rope.scaling == "longrope";
    if (rope.scaling != "llama3" && rope.scaling != "yarn" && !longrope) refuse(rope.scaling);
    rope.original_max_positions = config_.max_positions;
    for (const JsonKeys* keys : {&in_, &top_}) {
      if (!keys->has("original_max_position_embeddings")) continue;
      rope.original_max_positions = keys->size("original_max_position_embeddings", kMaxPositions);
    }
    if (longrope) return read_longrope(std::move(rope));
    return rope.scaling == "llama3" ? read_llama3(std::move(rope)) : read_yarn(std::move(rope));
  }

  void check_partial(const JsonKeys& keys, const RopeConfig& rope) const {
    if (rope.partial == 1.0) return;
    if (!family_.longrope) {
      keys.fail("partial_rotary_factor",
                rope.partial,
                " is not supported for ",
                family_.name,
                "; 1.0 is: every dimension of a head is rotated");
    }
    const int64_t rotated = rotated_dims(config_, rope);
    if (rope.partial > 1 || rotated < 2 || rotated % 2 != 0) {
      keys.fail("partial_rotary_factor",
                rope.partial,
                " of head_dim ",
                config_.head_dim,
                " is not an even number of dimensions from 2 to head_dim");
    }
  }

 private:
  [[noreturn]] void refuse(const std::string& scaling) const {
    in_.fail(in_.has("rope_type") ? "rope_type" : "type",
             '"',
             printable(scaling),
             "\" is not one of default, linear, dynamic, llama3, yarn",
             family_.longrope ? ", longrope" : "",
             ", which ",
             family_.name,
             " can have");
  }

  RopeConfig read_llama3(RopeConfig rope) const {
    rope.factor = in_.positive("factor");
    rope.low_freq_factor = in_.positive("low_freq_factor");
    rope.high_freq_factor = in_.positive("high_freq_factor");
    if (rope.high_freq_factor <= rope.low_freq_factor) {
      in_.fail("high_freq_factor",
               rope.high_freq_factor,
               " is not above low_freq_factor ",
               rope.low_freq_factor);
    }
    return rope;
  }

  RopeConfig read_yarn(RopeConfig rope) const {
    rope.factor = in_.positive("factor", stretch(config_, rope));
    rope.beta_fast = in_.positive("beta_fast", rope.beta_fast);
    rope.beta_slow = in_.positive("beta_slow", rope.beta_slow);
    rope.truncate = in_.flag("truncate", true);
    rope.attention_factor = yarn_mscale(rope.factor, 1.0);
    if (in_.has("mscale") && in_.has("mscale_all_dim")) {
      rope.attention_factor = yarn_mscale(rope.factor, in_.positive("mscale")) /
                              yarn_mscale(rope.factor, in_.positive("mscale_all_dim"));
    }
    rope.attention_factor = in_.positive("attention_factor", rope.attention_factor);
    return rope;
  }

  RopeConfig read_longrope(RopeConfig rope) const {
    if (rope.original_max_positions < 2)
      in_.fail("original_max_position_embeddings", rope.original_max_positions, " is below 2");
    rope.short_factor = factors("short_factor", rope);
    rope.long_factor = factors("long_factor", rope);
    const double factor = in_.positive("factor", stretch(config_, rope));
    rope.attention_factor = in_.positive(
        "attention_factor", longrope_attention_factor(factor, rope.original_max_positions));
    return rope;
  }

  std::vector<double> factors(const char* key, const RopeConfig& rope) const {
    const json& list = in_.at(key);
    const int64_t wanted = rotated_dims(config_, rope) / 2;
    if (!list.is_array() || static_cast<int64_t>(list.size()) != wanted) {
      in_.fail(key,
               "is not a list of ",
               wanted,
               " numbers, one for each pair of dimensions that is rotated");
    }
    std::vector<double> out;
    for (const json& value : list) {
      if (!value.is_number() || !(value.get<double>() > 0))
        in_.fail(key, JsonKeys::text(value), " is not a number above 0");
      out.push_back(value.get<double>());
    }
    return out;
  }

  const JsonKeys& top_;
  const JsonKeys& in_;
  const Family& family_;
  const ModelConfig& config_;
};

const json& object_at(const JsonKeys& keys, const char* key) {
  if (!keys.at(key).is_object()) keys.fail(key, JsonKeys::text(keys.at(key)), " is not an object");
  return keys.at(key);
}

json rope_json(const RopeConfig& rope, int64_t max_positions) {
  json out = {{"rope_type", rope.scaling}, {"rope_theta", rope.theta}};
  if (rope.partial != 1.0) out["partial_rotary_factor"] = rope.partial;
  if (rope.scaling == "default") return out;
  const bool longrope = rope.scaling == "longrope";
  if (!longrope) out["factor"] = rope.factor;
  if (rope.scaling == "llama3" || rope.scaling == "yarn" || longrope) {
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
  if (longrope) {
    out["short_factor"] = rope.short_factor;
    out["long_factor"] = rope.long_factor;
    out["attention_factor"] = rope.attention_factor;
  }
  return out;
}

/// As Phi-3's folders have it: transformers 4 refuses a rope_scaling with more than three keys, so
/// an attention factor is written only where it is not the one that the lengths give.
json longrope_scaling(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  json out = {
      {"type", "longrope"}, {"short_factor", rope.short_factor}, {"long_factor", rope.long_factor}};
  const double usual =
      longrope_attention_factor(stretch(config, rope), rope.original_max_positions);
  if (rope.attention_factor != usual) out["attention_factor"] = rope.attention_factor;
  return out;
}

}  // namespace

void read_rotation(const JsonKeys& top,
                   const fs::path& file,
                   const Family& family,
                   ModelConfig& config) {
  RopeConfig plain;
  plain.theta = top.positive("rope_theta", family.default_theta);
  plain.partial = top.positive("partial_rotary_factor", 1.0);
  const json nothing = json::object();
  const JsonKeys empty(file, "", nothing);
  RopeReader(top, empty, family, config).check_partial(top, plain);

  const char* section = nullptr;
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (top.has(key) && !object_at(top, key).empty()) section = key;
  }
  config.rope = plain;
  if (!family.local_rope) {
    if (!section) return;
    const JsonKeys in(file, std::string(section) + ".", top.at(section));
    config.rope = RopeReader(top, in, family, config).read(plain);
    return;
  }

  RopeConfig local;
  local.theta = top.positive("rope_local_base_freq", local.theta);
  config.local_rope = local;
  // rope_parameters has a section for each kind of layer; rope_scaling is of the others' alone.
  json global = nothing;
  std::string prefix = "rope_parameters.full_attention.";
  if (top.has("rope_parameters") && !top.at("rope_parameters").empty()) {
    const JsonKeys both(file, "rope_parameters.", top.at("rope_parameters"));
    global = object_at(both, "full_attention");
    const JsonKeys in(
        file, "rope_parameters.sliding_attention.", object_at(both, "sliding_attention"));
    config.local_rope = RopeReader(top, in, family, config).read(local);
  }
  if (top.has("rope_scaling") && !top.at("rope_scaling").empty()) {
    global.update(top.at("rope_scaling"));
    prefix = "rope_scaling.";
  }
  const JsonKeys in(file, prefix, global);
  config.rope = RopeReader(top, in, family, config).read(plain);
}

void write_rotation(const ModelConfig& config, const Family& family, nlohmann::ordered_json& out) {
  // transformers 5 reads rope_parameters, 4.x the others.
  const json parameters = rope_json(config.rope, config.max_positions);
  if (family.local_rope) {
    const RopeConfig& local = config.local_rope.value_or(config.rope);
    out["rope_parameters"] = {{"full_attention", parameters},
                              {"sliding_attention", rope_json(local, config.max_positions)}};
    out["rope_theta"] = config.rope.theta;
    out["rope_local_base_freq"] = local.theta;
  } else {
    out["rope_parameters"] = parameters;
    out["rope_theta"] = config.rope.theta;
  }
  if (config.rope.scaling == "longrope") {
    out["rope_scaling"] = longrope_scaling(config);
    out["original_max_position_embeddings"] = config.rope.original_max_positions;
  } else {
    out["rope_scaling"] = config.rope.scaling == "default" ? json(nullptr) : parameters;
  }
  if (config.rope.partial != 1.0) out["partial_rotary_factor"] = config.rope.partial;
}

}  // namespace praetor
