// Online IPO and IPO-MD (Calandriello et al. 2024, "Human Alignment of Large Language Models
// through Online Preference Optimisation", arXiv:2403.08635): both responses come from the policy,
// or both from its geometric mixture with the reference.
#include <ATen/ATen.h>

#include "learners/algorithms/pair_losses.h"

namespace praetor {

PairLosses ipo_loss(const PairLogprobs& pairs, double tau, bool hard) {
  const at::Tensor h = pairs.gap();
  at::Tensor p = pairs.win.select(1, 0);
  if (hard) p = p.gt(0.5).to(p.scalar_type()) + p.eq(0.5) * 0.5;
  const double target = 1 / (2 * tau);
  return {p * (h - target).square() + (1 - p) * (h + target).square(), {{"gap", h}}};
}

namespace {

std::unique_ptr<Algorithm> make(const std::string& name, YamlReader in, double mixture) {
  OnlinePairs method{.name = name, .config = PairsConfig::from_yaml(in)};
  const double tau = in.get("tau", 1.0, greater_than(0));
  const bool hard = in.get("hard_labels", false);
  if (name == "ipo_md") {
    mixture = in.get("mixture", mixture, left_open(0, 1));
    method.samples_per_prompt = 0;
    const Voice voice = mixture < 1 ? Voice{.kind = VoiceKind::kMixture, .share = mixture}
                                    : Voice{.kind = VoiceKind::kCompanion};
    method.others = {{.voice = voice, .samples = 2, .trained = true}};
  }
  in.reject_unknown_keys();
  method.loss = [=](const PairLogprobs& pairs) { return ipo_loss(pairs, tau, hard); };
  return make_online_pairs(std::move(method));
}

}  // namespace

std::unique_ptr<Algorithm> make_online_ipo(const AlgorithmContext& context) {
  return make("online_ipo", context.config, 0);
}

std::unique_ptr<Algorithm> make_ipo_md(const AlgorithmContext& context) {
  return make("ipo_md", context.config, 0.125);
}

}  // namespace praetor
