// Nash-MD-PG (Munos et al. 2023, "Nash Learning from Human Feedback", arXiv:2312.00886): the
// opponent is the geometric mixture of the policy and the reference, drawn token by token.
#include "learners/algorithms/nash_policy_gradient.h"

namespace praetor {

std::unique_ptr<Algorithm> make_nash_md(const AlgorithmContext& context) {
  YamlReader in = context.config;
  const NashConfig config = NashConfig::from_yaml(in);
  // beta of the paper: 0 is self-play, 1 a best response to the reference.
  const double mixture = in.get("mixture", 0.125, closed(0, 1));
  const int64_t reference_samples = in.get("reference_samples", 0, at_least(0));
  in.reject_unknown_keys();
  Voice voice{.kind = VoiceKind::kMixture, .share = mixture};
  if (mixture == 0) voice = {};
  if (mixture == 1) voice = {.kind = VoiceKind::kCompanion};
  return make_nash(
      config,
      {.name = "nash_md", .opponent = {.voice = voice}, .reference_samples = reference_samples});
}

}  // namespace praetor
