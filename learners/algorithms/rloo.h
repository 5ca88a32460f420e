#pragma once

#include <memory>

#include "core/config/yaml_reader.h"
#include "learners/algorithms/policy_gradient.h"

namespace praetor {

/// Section `rloo` of a stage.
struct RlooConfig : PolicyGradientConfig {
  RlooConfig();
  /// With ratio: token the default of `aggregation` is seq-mean-token-sum.
  static RlooConfig from_yaml(YamlReader in);
};

std::unique_ptr<Algorithm> make_rloo(RlooConfig config);

}  // namespace praetor
