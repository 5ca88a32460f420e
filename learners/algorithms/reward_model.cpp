// A reward model from preference pairs (Bradley and Terry 1952; arXiv:2203.02155).
#include "learners/algorithms/reward_model.h"

#include <ATen/ATen.h>

namespace praetor {

BradleyTerryConfig BradleyTerryConfig::from_yaml(YamlReader in) {
  BradleyTerryConfig c;
  c.batch_size = in.get("batch_size", c.batch_size, at_least(1));
  c.margin = in.get("margin", c.margin);
  c.label_noise = in.get("label_noise", c.label_noise, Range{0, 0.5, false, true});
  c.centring = in.get("centring", c.centring, at_least(0));
  in.reject_unknown_keys();
  return c;
}

namespace {

class RewardModel final : public Algorithm {
 public:
  explicit RewardModel(BradleyTerryConfig config) : config_(config) {}

  std::string name() const override { return "reward_model"; }
  ModelPlan models() const override {
    ModelPlan plan;
    plan.policy = false;
    plan.reward_model = true;
    return plan;
  }
  SamplePlan sample_plan() const override {
    return {.rows = RowForm::kPreference,
            .prompts_per_step = config_.batch_size,
            .samples_per_prompt = 0};
  }
  ScorePlan score_plan() const override { return ScorePlan::kNone; }
  Headline headline() const override { return {"eval/accuracy", true, "rm/accuracy"}; }

  LossResult loss(const MicroBatch& b) const override {
    const at::Tensor scores = b.score.view({-1, 2});
    const PairLoss pair = bradley_terry(scores.select(1, 0),
                                        scores.select(1, 1),
                                        config_.margin ? b.margin : at::Tensor(),
                                        b.denominators.pairs,
                                        {config_.label_noise, config_.centring});
    const auto count = static_cast<double>(scores.size(0));
    const at::Tensor plain = scores.detach().to(at::kDouble);
    LossResult out;
    out.loss = pair.loss;
    out.statistics = {
        {"rm/loss",
         pair.loss.detach().to(at::kDouble).item<double>() * b.denominators.pairs,
         count},
        {"rm/accuracy", pair.correct.item<double>(), count},
        {"rm/margin", pair.margin.to(at::kDouble).item<double>(), count},
        {"rm/pairs", count, 1, Statistic::Kind::kSum},
        {"rm/score_mean", plain.sum().item<double>(), 2 * count},
        {"rm/score_min", plain.min().item<double>(), 1, Statistic::Kind::kMin},
        {"rm/score_max", plain.max().item<double>(), 1, Statistic::Kind::kMax},
    };
    return out;
  }

 private:
  BradleyTerryConfig config_;
};

}  // namespace

std::unique_ptr<Algorithm> make_reward_model(BradleyTerryConfig config) {
  return std::make_unique<RewardModel>(config);
}

std::unique_ptr<Algorithm> make_reward_model(const AlgorithmContext& context) {
  return make_reward_model(BradleyTerryConfig::from_yaml(context.config));
}

}  // namespace praetor
