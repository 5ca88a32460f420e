#include <utility>

#include "learners/optim/adamw.h"

namespace praetor {

OptimizerConfig OptimizerConfig::from_yaml(YamlReader in, OptimizerConfig defaults) {
  OptimizerConfig c = std::move(defaults);
  c.learning_rate = in.get("learning_rate", c.learning_rate, greater_than(0));
  c.beta1 = in.get("beta1", c.beta1, Range{0, 1, false, true});
  c.beta2 = in.get("beta2", c.beta2, Range{0, 1, false, true});
  c.eps = in.get("eps", c.eps, greater_than(0));
  c.weight_decay = in.get("weight_decay", c.weight_decay, at_least(0));
  c.max_grad_norm = in.get("max_grad_norm", c.max_grad_norm, at_least(0));
  c.schedule.shape = in.get("schedule", c.schedule.shape, {"constant", "linear", "cosine"});
  c.schedule.warmup_steps = in.get("warmup_steps", c.schedule.warmup_steps, at_least(0));
  c.schedule.min_ratio = in.get("min_ratio", c.schedule.min_ratio, Range{0, 1, false, true});
  in.reject_unknown_keys();
  return c;
}

}  // namespace praetor
