// GRPO done right: no standard deviation, no division by the length (Liu et al. 2025,
// arXiv:2503.20783).
#include "learners/algorithms/dr_grpo.h"

namespace praetor {

GrpoConfig dr_grpo_defaults() {
  GrpoConfig c;
  c.aggregation = "seq-mean-token-sum-norm";
  c.scale_by_std = false;
  c.kl.placement = "none";
  return c;
}

std::unique_ptr<Algorithm> make_dr_grpo(const AlgorithmContext& context) {
  return make_grpo(GrpoConfig::from_yaml(context.config, dr_grpo_defaults()), "dr_grpo");
}

}  // namespace praetor
