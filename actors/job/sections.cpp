#include "actors/job/sections.h"

#include <algorithm>

#include "core/base/str.h"
#include "core/base/text.h"
#include "core/tokenizer/tokenizer.h"

namespace praetor {

bool is_safe_name(const std::string& name) {
  const auto safe = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  return !name.empty() && name.size() <= 100 && name[0] != '-' && name[0] != '.' &&
         std::ranges::all_of(name, safe);
}

Source source_from_yaml(YamlReader& in, const std::string& key) {
  static const std::string kPrefix = "stage:";
  Source out;
  const auto text = in.get_optional_string(key);
  if (!text) return out;
  if (!text->starts_with(kPrefix)) {
    out.path = in.get_path(key);
    return out;
  }
  const std::string rest = text->substr(kPrefix.size());
  const size_t slash = rest.find('/');
  const std::string stage = rest.substr(0, slash);
  const std::string file = slash == std::string::npos ? "" : rest.substr(slash + 1);
  if (!is_safe_name(stage) || !is_safe_name(file)) {
    in.error_at(key,
                str("\"",
                    printable(*text),
                    "\" is not of the form stage:NAME/FILE, as in stage:language/sft.jsonl"));
    return out;
  }
  out.stage = stage;
  out.file = file;
  return out;
}

KeepBestConfig KeepBestConfig::from_yaml(YamlReader in) {
  KeepBestConfig c;
  c.metric = in.get("metric", c.metric);
  if (!c.metric.empty() && !c.metric.starts_with("eval/")) {
    in.error_at("metric",
                str("\"", c.metric, "\" is no metric of an evaluation; these begin with eval/"));
  }
  if (!c.metric.empty()) {
    c.highest = in.get("mode", "max", {"max", "min"}) == "max";
  } else if (in.get_optional_string("mode")) {
    in.error_at("mode", "the stage's own metric knows what is better; metric is not given");
  }
  c.count = in.get("count", 1, at_least(1));
  in.reject_unknown_keys();
  return c;
}

CheckpointConfig CheckpointConfig::from_yaml(YamlReader in, const CheckpointConfig& defaults) {
  CheckpointConfig c = defaults;
  c.every = in.get("every", c.every, at_least(0));
  c.keep_last = in.get("keep_last", c.keep_last, at_least(1));
  c.keep_every = in.get("keep_every", c.keep_every, at_least(0));
  c.keep = in.get("keep", c.keep, {"last", "best"});
  if (const auto best = in.optional_child("keep_best"))
    c.keep_best = KeepBestConfig::from_yaml(*best);
  c.background = in.get("background", c.background);
  in.reject_unknown_keys();
  return c;
}

LedgerConfig LedgerConfig::from_yaml(YamlReader in) {
  LedgerConfig c;
  c.payload = in.get("payload", c.payload, {"all", "unsaved"});
  in.reject_unknown_keys();
  return c;
}

DataConfig DataConfig::from_yaml(YamlReader in, int64_t longest) {
  DataConfig c;
  c.train = source_from_yaml(in, "train");
  if (!in.has("train")) {
    in.error_at("", "missing key \"train\"; a file of JSON lines, or stage:NAME/FILE, is wanted");
  }
  c.eval = source_from_yaml(in, "eval");
  c.format.chat_template = in.get("template", c.format.chat_template, chat_template_names());
  c.format.wrap_prompt = in.get("wrap_prompt", c.format.wrap_prompt);
  c.format.max_length = in.get("max_length", longest, at_least(1));
  c.format.append_eos = in.get("append_eos", c.format.append_eos);
  c.shuffle = in.get("shuffle", c.shuffle);
  in.reject_unknown_keys();
  return c;
}

EvalConfig EvalConfig::from_yaml(YamlReader in) {
  EvalConfig c;
  c.every = in.get("every", c.every, at_least(0));
  c.prompts = in.get("prompts", c.prompts, at_least(0));
  c.require_rise = in.get("require_rise", c.require_rise);
  in.reject_unknown_keys();
  return c;
}

ModelConfig created_model_from_yaml(YamlReader in) {
  ModelConfig c;
  c.architecture = in.get("architecture", c.architecture, {"llama"});
  c.hidden_size = in.get("hidden_size", 128, closed(1, 65536));
  c.intermediate_size = in.get("intermediate_size", 4 * c.hidden_size, closed(1, 1 << 20));
  c.num_layers = in.get("num_layers", 2, closed(1, 1000));
  c.num_heads = in.get("num_heads", 4, closed(1, 1024));
  c.num_kv_heads = in.get("num_kv_heads", c.num_heads, closed(1, 1024));
  const bool divides = c.num_heads > 0 && c.hidden_size % c.num_heads == 0;
  c.head_dim =
      in.get("head_dim", divides ? c.hidden_size / c.num_heads : 0, at_least(divides ? 1 : 0));
  c.max_positions = in.get("max_positions", 512, closed(2, 1 << 20));
  c.norm_eps = in.get("norm_eps", c.norm_eps, open(0, 1));
  c.rope.theta = in.get("rope_theta", c.rope.theta, greater_than(0));
  c.tie_embeddings = in.get("tie_embeddings", true);
  c.initializer_range = in.get("initializer_range", c.initializer_range, open(0, 1));
  if (c.num_heads > 0 && c.num_kv_heads > 0 && c.num_heads % c.num_kv_heads != 0) {
    in.error_at("num_kv_heads", str(c.num_kv_heads, " does not divide num_heads, ", c.num_heads));
  }
  if (c.head_dim == 0) {
    in.error_at(
        "num_heads",
        str(c.num_heads, " does not divide hidden_size, ", c.hidden_size, "; give head_dim"));
  } else if (c.head_dim % 2 != 0) {
    in.error_at("head_dim", str(c.head_dim, " is odd; rotary positions need an even one"));
  }
  in.reject_unknown_keys();
  return c;
}

}  // namespace praetor
