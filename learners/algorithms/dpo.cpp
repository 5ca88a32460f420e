// Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290).
#include "learners/algorithms/dpo.h"

#include <ATen/ATen.h>

#include "core/base/error.h"
#include "learners/algorithms/bradley_terry.h"

namespace praetor {

DpoConfig DpoConfig::from_yaml(YamlReader in) {
  DpoConfig c;
  c.batch_size = in.get("batch_size", c.batch_size, at_least(1));
  c.beta = in.get("beta", c.beta, greater_than(0));
  c.label_smoothing = in.get("label_smoothing", c.label_smoothing, Range{0, 0.5, false, true});
  c.precomputed = in.get("reference", "computed", {"computed", "precomputed"}) == "precomputed";
  in.reject_unknown_keys();
  return c;
}

DpoLoss dpo_loss(const at::Tensor& log_ratio, double pairs, const DpoConfig& config) {
  if (log_ratio.dim() != 1 || log_ratio.numel() % 2 != 0)
    throw ShapeError("dpo: log_ratio has ", log_ratio.numel(), " entries, but pairs are wanted");
  if (!(pairs > 0)) throw InvalidArgument("dpo: pairs is ", pairs, ", but must be above 0");
  const at::Tensor rewards = log_ratio.view({-1, 2}) * config.beta;
  const at::Tensor h = rewards.select(1, 0) - rewards.select(1, 1);
  return {sigmoid_pair_loss(h, config.label_smoothing).sum() / pairs,
          rewards.select(1, 0).detach().to(at::kDouble),
          rewards.select(1, 1).detach().to(at::kDouble)};
}

namespace {

class Dpo final : public Algorithm {
 public:
  explicit Dpo(DpoConfig config) : config_(config) {}

  std::string name() const override { return "dpo"; }
  ModelPlan models() const override {
    ModelPlan plan;
    plan.reference = !config_.precomputed;
    plan.reference_in_rows = config_.precomputed;
    return plan;
  }
  SamplePlan sample_plan() const override {
    return {.rows = RowForm::kPreference,
            .prompts_per_step = config_.batch_size,
            .samples_per_prompt = 0};
  }
  ScorePlan score_plan() const override { return ScorePlan::kNone; }
  Headline headline() const override { return {"eval/accuracy", true, "dpo/accuracy"}; }

  LossResult loss(const MicroBatch& b) const override {
    const at::Tensor per_token = b.logprob - b.reference_logprob;
    const at::Tensor log_ratio = segment_sum(per_token, b.sequence_of, b.sequences);
    const DpoLoss pair = dpo_loss(log_ratio, b.denominators.pairs, config_);
    const at::Tensor gap = pair.chosen - pair.rejected;
    const auto count = static_cast<double>(gap.numel());
    const double correct = gap.gt(0).sum().item<double>() + gap.eq(0).sum().item<double>() / 2;
    const auto sum = [](const at::Tensor& t) { return t.sum().item<double>(); };
    LossResult out;
    out.loss = pair.loss;
    out.statistics = {
        {"dpo/loss",
         pair.loss.detach().to(at::kDouble).item<double>() * b.denominators.pairs,
         count},
        {"dpo/accuracy", correct, count},
        {"dpo/margin", sum(gap), count},
        {"dpo/chosen_reward", sum(pair.chosen), count},
        {"dpo/rejected_reward", sum(pair.rejected), count},
        {"dpo/pairs", count, 1, Statistic::Kind::kSum},
    };
    return out;
  }

 private:
  DpoConfig config_;
};

}  // namespace

std::unique_ptr<Algorithm> make_dpo(DpoConfig config) {
  return std::make_unique<Dpo>(config);
}

std::unique_ptr<Algorithm> make_dpo(const AlgorithmContext& context) {
  return make_dpo(DpoConfig::from_yaml(context.config));
}

}  // namespace praetor
