// REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv:2402.14740).
#include "learners/algorithms/rloo.h"

#include <ATen/ATen.h>

#include <utility>

#include "learners/advantage/groups.h"
#include "learners/algorithms/policy_objective.h"

namespace praetor {

RlooConfig::RlooConfig() {
  samples_per_prompt = 4;
  ratio = "sequence";
  // Every token of a sequence has the sequence's loss: their mean is that loss.
  aggregation = "seq-mean-token-mean";
}

RlooConfig RlooConfig::from_yaml(YamlReader in) {
  RlooConfig c;
  if (in.get("ratio", c.ratio, ratio_names()) == "token") c.aggregation = "seq-mean-token-sum";
  c.read(in);
  in.reject_unknown_keys();
  return c;
}

namespace {

class Rloo final : public PolicyGradient {
 public:
  explicit Rloo(RlooConfig config) : PolicyGradient("rloo", std::move(config)) {}

 protected:
  at::Tensor advantages(const ScoredBatch& batch, Metrics& metrics) override {
    report_groups(batch, metrics);
    return batch.per_token(leave_one_out(batch.reward, batch.groups));
  }
};

}  // namespace

std::unique_ptr<Algorithm> make_rloo(RlooConfig config) {
  return std::make_unique<Rloo>(std::move(config));
}

std::unique_ptr<Algorithm> make_rloo(const AlgorithmContext& context) {
  return make_rloo(RlooConfig::from_yaml(context.config));
}

}  // namespace praetor
