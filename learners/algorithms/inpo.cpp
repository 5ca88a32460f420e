// Iterative Nash policy optimisation (Zhang et al. 2024, arXiv:2407.00617): mirror descent against
// the policy at the start of the iteration, the anchor.
#include <ATen/ATen.h>

#include "learners/algorithms/pair_losses.h"

namespace praetor {

PairLosses inpo_loss(const PairLogprobs& pairs, double eta, double tau) {
  const at::Tensor log_ratio =
      pairs.policy - (tau / eta) * pairs.reference - ((eta - tau) / eta) * pairs.anchor;
  const at::Tensor h = log_ratio.select(1, 0) - log_ratio.select(1, 1);
  const at::Tensor miss = h - 1 / (2 * eta);
  return {miss.square(), {{"gap", h}, {"miss", miss}}};
}

std::unique_ptr<Algorithm> make_inpo(const AlgorithmContext& context) {
  YamlReader in = context.config;
  OnlinePairs method{.name = "inpo",
                     .config = PairsConfig::from_yaml(in),
                     .samples_per_prompt = 0,
                     .choice = PairChoice::kBestWorst,
                     .ordered = true};
  // Both the opponents and what is learned from are the anchor's own responses.
  method.others = {{.voice = {.kind = VoiceKind::kCompanion},
                    .samples = in.get("samples_per_prompt", 8, at_least(2)),
                    .trained = true}};
  const double eta = in.get("eta", 0.0075, greater_than(0));
  const double tau = in.get("tau", 0.0025, at_least(0));
  if (tau > eta) in.error_at("tau", "must not be above eta");
  method.anchor = AnchorPlan{.every = in.get("iteration_steps", 100, at_least(1))};
  in.reject_unknown_keys();
  method.loss = [=](const PairLogprobs& pairs) { return inpo_loss(pairs, eta, tau); };
  return make_online_pairs(std::move(method));
}

}  // namespace praetor
