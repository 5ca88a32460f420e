#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "reward/judge.h"
#include "reward/models/reward_model.h"

namespace praetor {

/// What becomes of a sample when a part could not score it.
enum class OnError {
  kDrop,   ///< it has no score; the caller drops and counts it
  kFail,   ///< the scoring ends
  kValue,  ///< its score is `error_value`
};

/// One summand of the score: a judge, or a reward model.
struct PartConfig {
  std::string name;     ///< unique; letters, digits, "_", "-", "."; names its metrics
  std::string kind;     ///< "model", or a judge of reward/judges/registry.h
  double weight = 1.0;  ///< any sign; 0 only measures
  std::shared_ptr<const Judge> judge;  ///< exactly one of the two, where the section has no errors
  std::optional<RewardModelConfig> model;
};

/// The section `rewards` of a job: score = sum over parts of weight * score.
struct RewardConfig {
  std::chrono::milliseconds timeout{2000};  ///< of one judge on one sample; models have none
  OnError on_error = OnError::kDrop;
  double error_value = 0.0;       ///< given exactly when on_error is kValue
  std::vector<PartConfig> parts;  ///< at least one

  static RewardConfig from_yaml(YamlReader in);
};

}  // namespace praetor
