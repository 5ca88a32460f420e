// Self-play preference optimisation (Wu et al. 2024, arXiv:2405.00675): the policy of the iteration
// before is both the opponent and what log-ratios are taken to, the anchor.
#include <ATen/ATen.h>

#include "learners/algorithms/pair_losses.h"

namespace praetor {

PairLosses sppo_loss(const PairLogprobs& pairs, double eta, bool hard) {
  const at::Tensor ratio = pairs.policy - pairs.anchor;
  at::Tensor win = pairs.win;
  if (hard) win = at::tensor({1.0, 0.0}, win.options()).expand_as(win);
  const at::Tensor miss = ratio - eta * (win - 0.5);
  return {miss.square().sum(1) / 2,
          {{"chosen_log_ratio", ratio.select(1, 0)}, {"rejected_log_ratio", ratio.select(1, 1)}}};
}

std::unique_ptr<Algorithm> make_sppo(const AlgorithmContext& context) {
  YamlReader in = context.config;
  OnlinePairs method{.name = "sppo",
                     .config = PairsConfig::from_yaml(in),
                     .samples_per_prompt = 0,
                     .choice = PairChoice::kBestWorst,
                     .ordered = true};
  // Both the opponents and what is learned from are the anchor's own responses.
  method.others = {{.voice = {.kind = VoiceKind::kCompanion},
                    .samples = in.get("samples_per_prompt", 5, at_least(2)),
                    .trained = true}};
  const double beta = in.get("beta", 0.001, greater_than(0));
  const bool hard = in.get("hard_labels", false);
  method.anchor = AnchorPlan{.every = in.get("iteration_steps", 100, at_least(1))};
  in.reject_unknown_keys();
  method.loss = [=](const PairLogprobs& pairs) { return sppo_loss(pairs, 1 / beta, hard); };
  return make_online_pairs(std::move(method));
}

}  // namespace praetor
