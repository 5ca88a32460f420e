#include "rollout/engine_config.h"

#include "core/base/str.h"

namespace praetor {

EngineConfig EngineConfig::from_yaml(YamlReader in) {
  EngineConfig c;
  c.max_sequences = in.get("max_sequences", c.max_sequences, closed(1, 65536));
  c.max_step_tokens = in.get("max_step_tokens", c.max_step_tokens, closed(1, 1 << 20));
  c.block_size = in.get("block_size", c.block_size, closed(1, 4096));
  c.cache_bytes = in.get("cache_bytes", c.cache_bytes, at_least(1 << 20));
  c.draft_tokens = in.get("draft_tokens", c.draft_tokens, closed(0, 64));
  c.weights = weight_kind_of(in.get("weights", to_string(c.weights), weight_kind_names()));
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
