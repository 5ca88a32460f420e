#include "learners/sharding/sharding_config.h"

namespace praetor {

ShardingConfig ShardingConfig::from_yaml(YamlReader in) {
  ShardingConfig c;
  c.stage = in.get("stage", c.stage, closed(1, 3));
  c.prefetch = in.get("prefetch", c.prefetch, at_least(0));
  c.group = in.get_optional_integer("group", at_least(1)).value_or(c.group);
  c.tensor = in.get("tensor", c.tensor, closed(1, 1024));
  in.reject_unknown_keys();
  return c;
}

}  // namespace praetor
