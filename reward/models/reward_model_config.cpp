#include "reward/models/reward_model.h"

namespace praetor {

namespace {

std::optional<ScoreNormaliser> normaliser_from_yaml(YamlReader& in) {
  auto section = in.optional_child("normalise");
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

}  // namespace

RewardModelConfig RewardModelConfig::from_yaml(YamlReader& in) {
  RewardModelConfig config;
  const ModelFolder folder = ModelFolder::from_yaml(in);
  config.path = folder.path;
  config.stage = folder.stage;
  config.chat_template = in.get("template", config.chat_template, chat_template_names());
  config.max_length = in.get("max_length", config.max_length, at_least(0));
  config.append_eos = in.get("append_eos", config.append_eos);
  config.batch_tokens = in.get("batch_tokens", config.batch_tokens, at_least(1));
  config.normalise = normaliser_from_yaml(in);
  return config;
}

}  // namespace praetor
