// Online DPO (Guo et al. 2024, "Direct Language Model Alignment from Online AI Feedback",
// arXiv:2402.04792).
#include <ATen/ATen.h>

#include "learners/algorithms/bradley_terry.h"
#include "learners/algorithms/pair_losses.h"

namespace praetor {

PairLosses online_dpo_loss(const PairLogprobs& pairs, double beta, double label_smoothing) {
  const at::Tensor h = pairs.gap() * beta;
  return {sigmoid_pair_loss(h, label_smoothing),
          {{"margin", h}, {"accuracy", h.gt(0).to(h.scalar_type()) + h.eq(0) * 0.5}}};
}

std::unique_ptr<Algorithm> make_online_dpo(const AlgorithmContext& context) {
  YamlReader in = context.config;
  OnlinePairs method{.name = "online_dpo", .config = PairsConfig::from_yaml(in), .ordered = true};
  const double beta = in.get("beta", 0.1, greater_than(0));
  const double smoothing = in.get("label_smoothing", 0.0, Range{0, 0.5, false, true});
  in.reject_unknown_keys();
  method.loss = [=](const PairLogprobs& pairs) { return online_dpo_loss(pairs, beta, smoothing); };
  return make_online_pairs(std::move(method));
}

}  // namespace praetor
