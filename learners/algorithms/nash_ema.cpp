// Nash-EMA-PG (arXiv:2312.00886, section 7): the opponent is an exponential average of the policy's
// weights, which stands for the mixture of its past iterates.
#include "learners/algorithms/nash_policy_gradient.h"

namespace praetor {

std::unique_ptr<Algorithm> make_nash_ema(const AlgorithmContext& context) {
  YamlReader in = context.config;
  const NashConfig config = NashConfig::from_yaml(in);
  const double decay = in.get("decay", 0.99, Range{0, 1, false, true});
  in.reject_unknown_keys();
  return make_nash(config,
                   {.name = "nash_ema",
                    .opponent = {.voice = {.kind = VoiceKind::kCompanion}},
                    .anchor = AnchorPlan{.every = 1, .decay = decay}});
}

}  // namespace praetor
