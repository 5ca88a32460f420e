#pragma once

#include <string>

#include "core/config/yaml_reader.h"
#include "learners/algorithms/kl.h"
#include "learners/algorithms/kl_controller.h"

namespace praetor {

/// Section `kl` of an algorithm: how the distance to the reference is measured, and where it is
/// paid.
struct KlConfig {
  std::string estimator = "k1";  ///< k1, k2, k3; in the loss also k3+ (k3's value, k2's gradient)
  std::string placement = "reward";  ///< reward, loss, none (no reference is held then)
  double coefficient = 0.05;         ///< beta at the start, >= 0
  std::string controller = "fixed";  ///< fixed, adaptive
  double target = 6.0;               ///< adaptive: nats a sequence, > 0
  double horizon = 10000;            ///< adaptive: sequences, > 0

  bool in_reward() const { return placement == "reward"; }
  bool in_loss() const { return placement == "loss"; }
  bool measured() const { return placement != "none"; }
  KlController make_controller() const;

  /// Absent keys keep what `defaults` say.
  static KlConfig from_yaml(YamlReader in, KlConfig defaults);
};

}  // namespace praetor
