// A gate over the attributes of a frozen reward model (ArmoRM, Wang et al. 2024, arXiv:2406.12845).
#include "learners/algorithms/attribute_gate.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/base/error.h"

namespace praetor {

AttributeGateConfig AttributeGateConfig::from_yaml(YamlReader in) {
  AttributeGateConfig c;
  c.batch_size = in.get("batch_size", c.batch_size, at_least(1));
  c.beta = in.get("beta", c.beta, greater_than(0));
  c.gate.layers = in.get("layers", c.gate.layers, closed(0, 100));
  c.gate.width = in.get("width", c.gate.width, closed(1, 65536));
  c.gate.verbosity = in.get("verbosity", c.gate.verbosity);
  c.gate.reference = in.get("reference_rows", c.gate.reference, closed(1, 1e9));
  in.reject_unknown_keys();
  return c;
}

PairLoss gated_pair_loss(const at::Tensor& values,
                         const at::Tensor& gate,
                         double pairs,
                         double beta) {
  if (values.dim() != 2 || values.sizes() != gate.sizes() || values.size(0) % 2 != 0) {
    throw ShapeError("gated_pair_loss: values ",
                     values.sizes(),
                     " and gate ",
                     gate.sizes(),
                     "; both are wanted of whole pairs");
  }
  const at::Tensor scores = (values * gate).sum(1).view({-1, 2}) * beta;
  return bradley_terry(scores.select(1, 0), scores.select(1, 1), {}, pairs);
}

namespace {

class AttributeGateTraining final : public Algorithm {
 public:
  explicit AttributeGateTraining(AttributeGateConfig config) : config_(std::move(config)) {}

  std::string name() const override { return "attribute_gate"; }
  ModelPlan models() const override {
    ModelPlan plan;
    plan.policy = false;
    plan.reward_model = true;
    plan.gate = config_.gate;
    return plan;
  }
  SamplePlan sample_plan() const override {
    SamplePlan plan;
    plan.rows = RowForm::kPreference;
    plan.prompts_per_step = config_.batch_size;
    plan.samples_per_prompt = 0;
    return plan;
  }
  ScorePlan score_plan() const override { return ScorePlan::kNone; }
  Headline headline() const override { return {"eval/accuracy", true, "gate/accuracy"}; }

  LossResult loss(const MicroBatch& b) const override {
    const PairLoss pair = gated_pair_loss(b.score, b.gate, b.denominators.pairs, config_.beta);
    const auto pairs = static_cast<double>(b.sequences) / 2;
    const at::Tensor weights = b.gate.detach().to(at::kDouble);
    const at::Tensor scale = weights.sum(1, true);
    const at::Tensor share = weights / scale;
    const auto sum = [](const at::Tensor& t) { return t.to(at::kDouble).sum().item<double>(); };
    LossResult out;
    out.loss = pair.loss;
    out.statistics = {
        {"gate/loss", sum(pair.loss.detach()) * b.denominators.pairs, pairs},
        {"gate/accuracy", sum(pair.correct), pairs},
        {"gate/margin", sum(pair.margin), pairs},
        {"gate/scale", sum(scale), 2 * pairs},
        {"gate/entropy", -sum(at::xlogy(share, share)), 2 * pairs},
        {"gate/pairs", pairs, 1, Statistic::Kind::kSum},
    };
    return out;
  }

 private:
  AttributeGateConfig config_;
};

}  // namespace

std::unique_ptr<Algorithm> make_attribute_gate(AttributeGateConfig config) {
  return std::make_unique<AttributeGateTraining>(std::move(config));
}

std::unique_ptr<Algorithm> make_attribute_gate(const AlgorithmContext& context) {
  return make_attribute_gate(AttributeGateConfig::from_yaml(context.config));
}

}  // namespace praetor
