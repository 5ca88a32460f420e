#pragma once

#include <memory>
#include <string>

#include "core/config/yaml_reader.h"
#include "learners/algorithms/policy_gradient.h"

namespace praetor {

/// Section `grpo` of a stage, and of the methods that differ from it in defaults alone (dr_grpo,
/// dapo, gspo).
struct GrpoConfig : PolicyGradientConfig {
  bool scale_by_std = true;  ///< advantages are divided by the deviation of their group
  double std_eps = 1e-6;     ///< added to it, > 0; 1e-4 is TRL's
  bool drop_equal = false;   ///< groups that scored alike are dropped and other prompts are taken

  /// The defaults of GRPO (Shao et al. 2024, arXiv:2402.03300).
  GrpoConfig();
  static GrpoConfig from_yaml(YamlReader in, GrpoConfig defaults = {});
};

/// @param name  of the method whose defaults `config` has
std::unique_ptr<Algorithm> make_grpo(GrpoConfig config, std::string name = "grpo");

}  // namespace praetor
