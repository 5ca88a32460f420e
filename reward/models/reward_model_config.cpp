#include "reward/models/reward_model.h"

namespace praetor {

std::optional<ScoreNormaliser> ScoreNormaliser::from_yaml(YamlReader& in, const std::string& key) {
  auto section = in.optional_child(key);
  if (!section) return std::nullopt;
  ScoreNormaliser out;
  out.from_model = section->get("from_model", out.from_model);
  const bool given = section->has("mean") || section->has("std");
  if (out.from_model) {
    if (given)
      section->error_at("from_model", "mean and std are given as well; keep one of the two");
    section->get_optional_number("mean");
    section->get_optional_number("std");
  } else {
    out.mean = section->require_number("mean", closed(-1e9, 1e9));
    out.std = section->require_number("std", left_open(0, 1e9));
  }
  section->reject_unknown_keys();
  return out;
}

RewardModelConfig RewardModelConfig::from_yaml(YamlReader& in) {
  RewardModelConfig config;
  const ModelFolder folder = ModelFolder::from_yaml(in);
  config.path = folder.path;
  config.stage = folder.stage;
  config.read(in);
  config.normalise = ScoreNormaliser::from_yaml(in, "normalise");
  return config;
}

}  // namespace praetor
