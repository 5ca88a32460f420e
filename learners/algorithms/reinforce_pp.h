#pragma once

#include <memory>
#include <string>

#include "core/config/yaml_reader.h"
#include "learners/algorithms/policy_gradient.h"

namespace praetor {

/// Section `reinforce_pp` of a stage.
struct ReinforcePpConfig : PolicyGradientConfig {
  /// none: rewards to go, whitened over the batch; group: scores less the mean of their prompt's,
  /// whitened likewise, with the KL in the loss.
  std::string baseline = "none";
  double gamma = 1.0;  ///< discount of rewards to go, (0, 1]

  /// Defaults follow the baseline: of group 8 samples a prompt and k2 in the loss.
  explicit ReinforcePpConfig(std::string baseline = "none");
  static ReinforcePpConfig from_yaml(YamlReader in);
};

std::unique_ptr<Algorithm> make_reinforce_pp(ReinforcePpConfig config);

}  // namespace praetor
