#include "learners/algorithms/kl_config.h"

#include <utility>

namespace praetor {

KlConfig KlConfig::from_yaml(YamlReader in, KlConfig defaults) {
  KlConfig c = std::move(defaults);
  c.estimator = in.get("estimator", c.estimator, {"k1", "k2", "k3", "k3+"});
  c.placement = in.get("placement", c.placement, {"reward", "loss", "none"});
  c.coefficient = in.get("coefficient", c.coefficient, at_least(0));
  c.controller = in.get("controller", c.controller, {"fixed", "adaptive"});
  c.target = in.get("target", c.target, greater_than(0));
  c.horizon = in.get("horizon", c.horizon, greater_than(0));
  if (c.in_loss() && c.estimator == "k1") {
    in.error_at("estimator", "k1 has a gradient of mean 0 in the loss; use k2, k3 or k3+ there");
  }
  if (c.in_reward() && c.estimator == "k3+") {
    in.error_at("estimator",
                "k3+ changes the gradient alone, and a reward has none; use k1, k2 or k3");
  }
  if (!c.measured() && c.controller == "adaptive") {
    in.error_at("controller", "an adaptive coefficient needs placement reward or loss");
  }
  in.reject_unknown_keys();
  return c;
}

KlController KlConfig::make_controller() const {
  return controller == "adaptive" ? KlController::adaptive(coefficient, target, horizon)
                                  : KlController::fixed(coefficient);
}

}  // namespace praetor
