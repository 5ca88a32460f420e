#include "rollout/sampling_config.h"

#include "core/base/error.h"
#include "core/base/text.h"

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

}  // namespace

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
  for (const std::string& stop : p.stop_strings) {
    if (stop.empty()) throw InvalidArgument(what, ": stop: an empty string would stop everything");
    if (!is_utf8(stop)) throw InvalidArgument(what, ": stop: not UTF-8: ", printable(stop));
  }
  for (const int64_t id : p.stop_tokens) {
    if (id < 0) throw InvalidArgument(what, ": stop_token_ids: ", id, " is not a token id");
  }
}

}  // namespace praetor
