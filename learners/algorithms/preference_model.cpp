// A language model that says which of two responses is better (Dong et al. 2024, arXiv:2405.07863).
#include "learners/algorithms/preference_model.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/base/error.h"
#include "learners/algorithms/checks.h"

namespace praetor {

PreferenceModelConfig PreferenceModelConfig::from_yaml(YamlReader in) {
  PreferenceModelConfig c;
  c.batch_size = in.get("batch_size", c.batch_size, at_least(1));
  c.question = PairQuestion::from_yaml(in);
  c.loss.vocabulary =
      in.get("normalise_over", "answers", {"answers", "vocabulary"}) == "vocabulary";
  c.loss.label_smoothing =
      in.get("label_smoothing", c.loss.label_smoothing, Range{0, 0.5, false, true});
  in.reject_unknown_keys();
  return c;
}

AnswerLoss answer_loss(const at::Tensor& right,
                       const at::Tensor& wrong,
                       double pairs,
                       AnswerLossOptions options) {
  require_same_shape("answer_loss", right, {{"wrong", wrong}});
  if (right.dim() != 1 || right.numel() % 2 != 0)
    throw ShapeError("answer_loss: ", right.numel(), " answers, but two for each pair are wanted");
  if (!(pairs > 0)) throw InvalidArgument("answer_loss: pairs is ", pairs, ", but must be above 0");
  const auto nll = [&](const at::Tensor& x, const at::Tensor& y) {
    return options.vocabulary ? -x : at::softplus(y - x);
  };
  at::Tensor each = nll(right, wrong) * (1 - options.label_smoothing);
  if (options.label_smoothing > 0) each = each + nll(wrong, right) * options.label_smoothing;

  const at::Tensor gap = (right - wrong).detach().to(at::kDouble);
  const at::Tensor both = gap.view({-1, 2}).sign().sum(1).abs();
  const auto count = [](const at::Tensor& where) { return where.sum().item<double>(); };
  AnswerLoss out;
  out.loss = each.sum() / (2 * pairs);
  out.correct = count(gap.gt(0)) + count(gap.eq(0)) / 2;
  out.consistent = count(both.eq(2));
  // With the chosen response second, 1 - P_first is the probability of the right answer too.
  out.probability = gap.sigmoid().sum().item<double>() / 2;
  return out;
}

namespace {

class PreferenceModel final : public Algorithm {
 public:
  explicit PreferenceModel(PreferenceModelConfig config) : config_(std::move(config)) {}

  std::string name() const override { return "preference_model"; }
  SamplePlan sample_plan() const override {
    return {.rows = RowForm::kPreference,
            .question = config_.question,
            .prompts_per_step = config_.batch_size,
            .samples_per_prompt = 0};
  }
  ScorePlan score_plan() const override { return ScorePlan::kNone; }
  UpdatePlan update_plan() const override { return {.rival = true}; }
  Headline headline() const override { return {"eval/accuracy", true, "pm/accuracy"}; }

  LossResult loss(const MicroBatch& b) const override {
    const double total = b.denominators.pairs;
    const AnswerLoss answers = answer_loss(b.logprob, b.rival_logprob, total, config_.loss);
    const double pairs = static_cast<double>(b.sequences) / 2;
    LossResult out;
    out.loss = answers.loss;
    out.statistics = {
        {"pm/loss", answers.loss.detach().to(at::kDouble).item<double>() * total, pairs},
        {"pm/accuracy", answers.correct, 2 * pairs},
        {"pm/order_consistency", answers.consistent, pairs},
        {"pm/probability", answers.probability, pairs},
        {"pm/pairs", pairs, 1, Statistic::Kind::kSum},
    };
    return out;
  }

 private:
  PreferenceModelConfig config_;
};

}  // namespace

std::unique_ptr<Algorithm> make_preference_model(PreferenceModelConfig config) {
  return std::make_unique<PreferenceModel>(std::move(config));
}

std::unique_ptr<Algorithm> make_preference_model(const AlgorithmContext& context) {
  return make_preference_model(PreferenceModelConfig::from_yaml(context.config));
}

}  // namespace praetor
