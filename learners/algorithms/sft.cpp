// Supervised fine-tuning: mean negative log-likelihood of the target tokens of a step.
#include "learners/algorithms/sft.h"

#include <ATen/ATen.h>

namespace praetor {

SftConfig SftConfig::from_yaml(YamlReader in) {
  SftConfig c;
  c.batch_size = in.get("batch_size", c.batch_size, at_least(1));
  in.reject_unknown_keys();
  return c;
}

namespace {

class Sft final : public Algorithm {
 public:
  explicit Sft(SftConfig config) : config_(config) {}

  std::string name() const override { return "sft"; }
  SamplePlan sample_plan() const override {
    return {.rows = RowForm::kCompletion,
            .prompts_per_step = config_.batch_size,
            .samples_per_prompt = 0};
  }
  ScorePlan score_plan() const override { return ScorePlan::kNone; }
  Headline headline() const override { return {"eval/loss", false, "sft/loss"}; }

  LossResult loss(const MicroBatch& b) const override {
    LossResult out;
    out.loss = aggregate(-b.logprob, b.mask, b.sequence_of, b.denominators);
    const double count = b.mask.sum().item<double>();
    const double share = out.loss.detach().to(at::kDouble).item<double>() * b.denominators.tokens;
    out.statistics = {{"sft/loss", share, count},
                      {"sft/ppl", share, count, Statistic::Kind::kExpMean},
                      {"sft/tokens", count, 1, Statistic::Kind::kSum}};
    return out;
  }

 private:
  SftConfig config_;
};

}  // namespace

std::unique_ptr<Algorithm> make_sft(SftConfig config) {
  return std::make_unique<Sft>(config);
}

std::unique_ptr<Algorithm> make_sft(const AlgorithmContext& context) {
  return make_sft(SftConfig::from_yaml(context.config));
}

}  // namespace praetor
