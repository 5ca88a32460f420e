// Decoupled clip and dynamic sampling policy optimisation (Yu et al. 2025, arXiv:2503.14476).
#include "learners/algorithms/dapo.h"

namespace praetor {

GrpoConfig dapo_defaults() {
  GrpoConfig c;
  c.clip_high = 0.28;
  c.aggregation = "token-mean";
  c.samples_per_prompt = 16;
  c.drop_equal = true;
  c.overlong_buffer = 0.2;  // 4096 of 20480 tokens
  c.kl.placement = "none";
  return c;
}

std::unique_ptr<Algorithm> make_dapo(const AlgorithmContext& context) {
  return make_grpo(GrpoConfig::from_yaml(context.config, dapo_defaults()), "dapo");
}

}  // namespace praetor
