// REINFORCE++ (Hu 2025, arXiv:2501.03262): PPO's clipping and penalty with a baseline of the whole
// batch in place of a critic.
#include "learners/algorithms/reinforce_pp.h"

#include <ATen/ATen.h>

#include <utility>

#include "learners/advantage/gae.h"
#include "learners/advantage/groups.h"
#include "learners/advantage/whiten.h"

namespace praetor {

ReinforcePpConfig::ReinforcePpConfig(std::string with) : baseline(std::move(with)) {
  samples_per_prompt = baseline == "group" ? 8 : 1;
  kl.coefficient = 0.01;
  if (baseline == "group") {
    kl.estimator = "k2";
    kl.placement = "loss";
  }
}

ReinforcePpConfig ReinforcePpConfig::from_yaml(YamlReader in) {
  ReinforcePpConfig c(in.get("baseline", "none", {"none", "group"}));
  c.read(in);
  c.gamma = in.get("gamma", c.gamma, left_open(0, 1));
  if (c.baseline == "group" && c.kl.in_reward()) {
    YamlReader kl = in.child("kl");
    kl.error_at(
        "placement",
        "baseline: group compares scores alone; the penalty is placed in the loss, or none");
  }
  in.reject_unknown_keys();
  return c;
}

namespace {

class ReinforcePp final : public PolicyGradient {
 public:
  explicit ReinforcePp(ReinforcePpConfig config)
      : PolicyGradient("reinforce_pp", config), config_(std::move(config)) {}

 protected:
  at::Tensor advantages(const ScoredBatch& batch, Metrics& metrics) override {
    return whiten(gains(batch, metrics), batch.mask, /*shift=*/true);
  }

 private:
  at::Tensor gains(const ScoredBatch& batch, Metrics& metrics) {
    if (config_.baseline == "group") {
      report_groups(batch, metrics);
      return batch.per_token(group_advantage(batch.reward, batch.groups, std::nullopt));
    }
    // Without values and with lambda = 1 the estimate is the sum of the rewards that are to come.
    const at::Tensor& reward = batch.shaped.reward;
    return gae(reward,
               at::zeros_like(reward),
               batch.experience.sequence_of,
               {.gamma = config_.gamma, .lambda = 1})
        .advantage;
  }

  const ReinforcePpConfig config_;
};

}  // namespace

std::unique_ptr<Algorithm> make_reinforce_pp(ReinforcePpConfig config) {
  return std::make_unique<ReinforcePp>(std::move(config));
}

std::unique_ptr<Algorithm> make_reinforce_pp(const AlgorithmContext& context) {
  return make_reinforce_pp(ReinforcePpConfig::from_yaml(context.config));
}

}  // namespace praetor
