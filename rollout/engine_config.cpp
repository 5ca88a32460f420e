#include "rollout/engine_config.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

const std::vector<std::string>& engine_device_names() {
  static const std::vector<std::string> kNames = {"cpu", "cuda"};
  return kNames;
}

EngineDevice engine_device_of(const std::string& name) {
  const auto& names = engine_device_names();
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) {
    throw InvalidArgument(
        printable(name), " is no device of the engine; known: ", join(names, ", "));
  }
  return static_cast<EngineDevice>(found - names.begin());
}

const std::string& to_string(EngineDevice device) {
  return engine_device_names().at(static_cast<size_t>(device));
}

EngineConfig EngineConfig::from_yaml(YamlReader in) {
  EngineConfig c;
  c.device = engine_device_of(in.get("device", to_string(c.device), engine_device_names()));
  const bool on_gpu = c.device == EngineDevice::kCuda;
  if (on_gpu) {
    c.cache_bytes = 0;
    c.weights = WeightKind::kBfloat16;
  }
  c.max_sequences = in.get("max_sequences", c.max_sequences, closed(1, 65536));
  c.max_step_tokens = in.get("max_step_tokens", c.max_step_tokens, closed(1, 1 << 20));
  c.block_size = in.get("block_size", c.block_size, closed(1, 4096));
  c.cache_bytes = in.get("cache_bytes", c.cache_bytes, at_least(on_gpu ? 0 : 1 << 20));
  if (c.cache_bytes > 0 && c.cache_bytes < 1 << 20)
    in.error_at("cache_bytes",
                str(c.cache_bytes, " is neither 0 (what the GPU has) nor >= 1048576"));
  c.draft_tokens = in.get("draft_tokens", c.draft_tokens, closed(0, 64));
  c.weights = weight_kind_of(in.get("weights", to_string(c.weights), weight_kind_names()));
  if (on_gpu && c.weights != WeightKind::kBfloat16)
    in.error_at("weights", str(to_string(c.weights), ": device cuda multiplies by bfloat16"));
  if (c.max_step_tokens < c.max_sequences) {
    in.error_at("max_step_tokens",
                str(c.max_step_tokens,
                    " is less than max_sequences, ",
                    c.max_sequences,
                    ": each running response needs a row of every step"));
  }
  in.reject_unknown_keys();
  return c;
}

}  // namespace praetor
