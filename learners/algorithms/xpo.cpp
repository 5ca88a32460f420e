// Exploratory preference optimisation (Xie et al. 2024, arXiv:2405.21046): one response of the
// policy, one of the reference.
#include <ATen/ATen.h>

#include "learners/algorithms/pair_losses.h"

namespace praetor {

PairLosses xpo_loss(const PairLogprobs& pairs, double beta, double alpha) {
  PairLosses out = online_dpo_loss(pairs, beta, 0);
  const at::Tensor explored = (pairs.policy * pairs.other).sum(1);
  out.loss = out.loss + alpha * explored;
  out.figures.emplace_back("reference_logprob", explored);
  return out;
}

std::unique_ptr<Algorithm> make_xpo(const AlgorithmContext& context) {
  YamlReader in = context.config;
  OnlinePairs method{.name = "xpo",
                     .config = PairsConfig::from_yaml(in),
                     .samples_per_prompt = 1,
                     .others = {{.voice = {.kind = VoiceKind::kCompanion}, .trained = true}},
                     .ordered = true};
  const double beta = in.get("beta", 0.1, greater_than(0));
  const double alpha = in.get("alpha", 1e-5, at_least(0));
  in.reject_unknown_keys();
  method.loss = [=](const PairLogprobs& pairs) { return xpo_loss(pairs, beta, alpha); };
  return make_online_pairs(std::move(method));
}

}  // namespace praetor
