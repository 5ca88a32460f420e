#pragma once

#include <memory>

#include "core/config/yaml_reader.h"
#include "learners/algorithms/policy_gradient.h"

namespace praetor {

/// Section `remax` of a stage.
struct RemaxConfig : PolicyGradientConfig {
  RemaxConfig();
  static RemaxConfig from_yaml(YamlReader in);
};

std::unique_ptr<Algorithm> make_remax(RemaxConfig config);

}  // namespace praetor
