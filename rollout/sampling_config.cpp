#include "rollout/sampling_config.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "core/base/text.h"
#include "rollout/processors/registry.h"

namespace praetor {
namespace {

// Below this a float32 logit divided by the temperature may overflow; 0 says greedy without it.
constexpr double kLowestTemperature = 1e-3;

Range temperatures() {
  return closed(0, 100);
}
Range penalties() {
  return left_open(0, 100);
}
Range unit_half_open() {
  return {0, 1, false, true};
}

std::string too_cold(double temperature) {
  return str(temperature, " is too small: 0 is greedy, and the smallest other value is 0.001");
}

bool cold(double temperature) {
  return temperature > 0 && temperature < kLowestTemperature;
}

void check(const std::string& what, const char* key, double value, const Range& range) {
  if (!range.holds(value)) {
    throw InvalidArgument(what, ": ", key, ": ", value, " is outside ", range.text());
  }
}

Range openai_penalties() {
  return closed(-2, 2);
}

using Json = nlohmann::ordered_json;

std::string dumped(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// {"key":value}, of a value that is JSON already.
std::string wrapped(const char* key, const std::string& json) {
  return str("{\"", key, "\":", json, "}");
}

/// Adds a processor whose options the key holds, if they are good.
void add(YamlReader& in, const std::string& key, ProcessorSpec spec, SamplingParams& params) {
  try {
    read_processor(spec);
    params.processors.push_back(std::move(spec));
  } catch (const InvalidArgument& failure) {
    in.error_at(key, failure.what());
  }
}

void read_processor_keys(YamlReader& in, SamplingParams& p) {
  const int64_t least = in.get("min_new_tokens", 0, at_least(0));
  if (least > p.max_new_tokens)
    in.error_at("min_new_tokens", str(least, " is above max_new_tokens, ", p.max_new_tokens));
  if (least > 0) add(in, "min_new_tokens", min_new_tokens(least), p);
  const auto words = in.get_optional_json("bad_words");
  if (words && *words != "[]") add(in, "bad_words", bad_words(*words), p);
  const auto ids = in.get("allowed_tokens", std::vector<int64_t>());
  if (!ids.empty()) add(in, "allowed_tokens", allowed_tokens(ids), p);
  const auto biases = in.get_optional_json("logit_bias");
  if (biases && *biases != "{}") add(in, "logit_bias", logit_bias(*biases), p);
  const double presence = in.get("presence_penalty", 0.0, openai_penalties());
  if (presence != 0) add(in, "presence_penalty", presence_penalty(presence), p);
  const double frequency = in.get("frequency_penalty", 0.0, openai_penalties());
  if (frequency != 0) add(in, "frequency_penalty", frequency_penalty(frequency), p);
  if (const auto pattern = in.get_optional_string("regex"))
    add(in, "regex", regex_constraint(*pattern), p);
  if (const auto schema = in.get_optional_json("json_schema"))
    add(in, "json_schema", json_schema_constraint(*schema), p);
}

void read_processor_list(YamlReader& in, SamplingParams& p) {
  for (YamlReader& item : in.list("processors")) {
    const std::string kind = item.require_string("kind", processor_kinds());
    std::string options;
    for (const std::string& key : item.keys()) {
      if (key == "kind") continue;
      const auto value = item.get_optional_json(key);
      if (value) options += str(options.empty() ? "" : ",", dumped(key), ":", *value);
    }
    if (!kind.empty()) add(item, "", {kind, "{" + options + "}"}, p);
  }
}

}  // namespace

ProcessorSpec min_new_tokens(int64_t tokens) {
  return {"min_new_tokens", dumped({{"tokens", tokens}})};
}

ProcessorSpec bad_words(const std::string& json_list) {
  return {"bad_words", wrapped("words", json_list)};
}

ProcessorSpec allowed_tokens(const std::vector<int64_t>& ids) {
  return {"allowed_tokens", dumped({{"ids", ids}})};
}

ProcessorSpec logit_bias(const std::string& json_mapping) {
  return {"logit_bias", wrapped("bias", json_mapping)};
}

ProcessorSpec presence_penalty(double penalty) {
  return {"presence_penalty", dumped({{"penalty", penalty}})};
}

ProcessorSpec frequency_penalty(double penalty) {
  return {"frequency_penalty", dumped({{"penalty", penalty}})};
}

ProcessorSpec regex_constraint(const std::string& pattern) {
  return {"regex", dumped({{"pattern", pattern}})};
}

ProcessorSpec json_schema_constraint(const std::string& schema) {
  return {"json_schema", wrapped("schema", schema)};
}

SamplingParams sampling_from_yaml(YamlReader in) {
  SamplingParams p;
  p.max_new_tokens = in.get("max_new_tokens", p.max_new_tokens, at_least(1));
  p.temperature = in.get("temperature", p.temperature, temperatures());
  if (cold(p.temperature)) in.error_at("temperature", too_cold(p.temperature));
  p.top_k = in.get("top_k", p.top_k, at_least(0));
  p.top_p = in.get("top_p", p.top_p, left_open(0, 1));
  p.min_p = in.get("min_p", p.min_p, unit_half_open());
  p.repetition_penalty = in.get("repetition_penalty", p.repetition_penalty, penalties());
  p.stop_strings = in.get("stop", p.stop_strings);
  for (const std::string& stop : p.stop_strings) {
    if (stop.empty()) in.error_at("stop", "an empty string would stop every response at once");
  }
  p.stop_tokens = in.get("stop_token_ids", p.stop_tokens);
  for (const int64_t id : p.stop_tokens) {
    if (id < 0) in.error_at("stop_token_ids", str(id, " is not a token id: they are >= 0"));
  }
  p.ignore_eos = in.get("ignore_eos", p.ignore_eos);
  read_processor_keys(in, p);
  read_processor_list(in, p);
  in.reject_unknown_keys();
  return p;
}

void check_sampling(const SamplingParams& p, const std::string& what) {
  check(what, "max_new_tokens", static_cast<double>(p.max_new_tokens), at_least(1));
  check(what, "temperature", p.temperature, temperatures());
  if (cold(p.temperature)) throw InvalidArgument(what, ": temperature: ", too_cold(p.temperature));
  check(what, "top_k", static_cast<double>(p.top_k), at_least(0));
  check(what, "top_p", p.top_p, left_open(0, 1));
  check(what, "min_p", p.min_p, unit_half_open());
  check(what, "repetition_penalty", p.repetition_penalty, penalties());
  check(what,
        "top_logprobs",
        static_cast<double>(p.top_logprobs),
        closed(0, static_cast<double>(kMostTopLogprobs)));
  for (const std::string& stop : p.stop_strings) {
    if (stop.empty()) throw InvalidArgument(what, ": stop: an empty string would stop everything");
    if (!is_utf8(stop)) throw InvalidArgument(what, ": stop: not UTF-8: ", printable(stop));
  }
  for (const int64_t id : p.stop_tokens) {
    if (id < 0) throw InvalidArgument(what, ": stop_token_ids: ", id, " is not a token id");
  }
}

void check_processors(const SamplingParams& params, const std::string& what) {
  for (size_t i = 0; i < params.processors.size(); ++i) {
    try {
      read_processor(params.processors[i]);
    } catch (const InvalidArgument& failure) {
      throw InvalidArgument(what, ": processors[", i, "]: ", failure.what());
    }
  }
}

}  // namespace praetor
