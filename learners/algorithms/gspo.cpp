// Group sequence policy optimisation (Zheng et al. 2025, arXiv:2507.18071).
#include "learners/algorithms/gspo.h"

namespace praetor {

GrpoConfig gspo_defaults() {
  GrpoConfig c;
  c.ratio = "sequence_mean";
  c.clip_low = 3e-4;
  c.clip_high = 4e-4;
  c.kl.placement = "none";
  return c;
}

std::unique_ptr<Algorithm> make_gspo(const AlgorithmContext& context) {
  return make_grpo(GrpoConfig::from_yaml(context.config, gspo_defaults()), "gspo");
}

}  // namespace praetor
