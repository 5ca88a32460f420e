// A reward model of several attributes, by regression on labels (HelpSteer2, Wang et al. 2024,
// arXiv:2406.08673).
#include "learners/algorithms/attribute_model.h"

#include <ATen/ATen.h>

#include <cmath>
#include <map>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

AttributeWeights attributes_from_yaml(YamlReader& in, AttributeWeights fallback) {
  const bool given = in.has("attributes");
  YamlReader section = in.child("attributes");
  AttributeWeights out = given ? AttributeWeights{} : std::move(fallback);
  if (given) {
    for (const std::string& name : section.keys()) out.emplace_back(name, 1.0);
    if (out.empty())
      in.error_at("attributes", "at least one is wanted: the field of its label, with its weight");
  }
  for (auto& [name, weight] : out) {
    weight = section.get(name, weight, closed(-1e9, 1e9));
    // reward/PART/mean is the mean of the whole score.
    if (name == "mean") section.error_at(name, "another name is wanted; metrics use this one");
  }
  return out;
}

AttributeModelConfig AttributeModelConfig::from_yaml(YamlReader in) {
  AttributeModelConfig c;
  c.batch_size = in.get("batch_size", c.batch_size, at_least(1));
  c.attributes = attributes_from_yaml(in, c.attributes);
  in.reject_unknown_keys();
  return c;
}

AttributeLoss attribute_loss(const at::Tensor& score, const at::Tensor& labels, double count) {
  if (score.dim() != 2 || score.sizes() != labels.sizes())
    throw ShapeError("attributes: scores ", score.sizes(), " for labels ", labels.sizes());
  if (!(count > 0)) throw InvalidArgument("attributes: count is ", count, ", but must be above 0");
  const at::Tensor missing = labels.isnan();
  const at::Tensor wanted = labels.masked_fill(missing, 0.0).to(score.scalar_type());
  const at::Tensor squares = (score - wanted).masked_fill(missing, 0.0).square();
  return {squares.sum() / count,
          squares.detach().to(at::kDouble).sum(0),
          missing.logical_not().to(at::kDouble).sum(0)};
}

double pearson(const at::Tensor& x, const at::Tensor& y) {
  const at::Tensor both = x.isnan().logical_or(y.isnan()).logical_not();
  const at::Tensor a = x.masked_select(both).to(at::kDouble);
  const at::Tensor b = y.masked_select(both).to(at::kDouble);
  if (a.numel() < 2) return 0;
  const at::Tensor da = a - a.mean(), db = b - b.mean();
  const double scale = std::sqrt((da.square().sum() * db.square().sum()).item<double>());
  return scale > 0 ? (da * db).sum().item<double>() / scale : 0;
}

PairAccuracy pair_accuracy(const at::Tensor& score,
                           const at::Tensor& label,
                           const std::vector<int64_t>& prompt) {
  const at::Tensor s = score.to(at::kDouble).contiguous(), l = label.to(at::kDouble).contiguous();
  const double* scores = s.const_data_ptr<double>();
  const double* labels = l.const_data_ptr<double>();
  std::map<int64_t, std::vector<size_t>> groups;
  for (size_t i = 0; i < prompt.size(); ++i) groups[prompt[i]].push_back(i);
  PairAccuracy out;
  for (const auto& [id, rows] : groups) {
    for (size_t a = 0; a < rows.size(); ++a) {
      for (size_t b = a + 1; b < rows.size(); ++b) {
        const double wanted = labels[rows[a]] - labels[rows[b]];
        const double said = scores[rows[a]] - scores[rows[b]];
        if (std::isnan(wanted) || std::isnan(said) || wanted == 0) continue;
        out.pairs += 1;
        out.right += said == 0 ? 0.5 : ((said > 0) == (wanted > 0) ? 1 : 0);
      }
    }
  }
  return out;
}

ModelPlan AttributeModel::models() const {
  ModelPlan plan;
  plan.policy = false;
  plan.reward_model = true;
  return plan;
}

SamplePlan AttributeModel::sample_plan() const {
  SamplePlan plan;
  plan.rows = RowForm::kCompletion;
  for (const auto& [name, weight] : config_.attributes) plan.labels.push_back(name);
  plan.prompts_per_step = config_.batch_size;
  plan.samples_per_prompt = 0;
  return plan;
}

LossResult AttributeModel::loss(const MicroBatch& b) const {
  const AttributeLoss error =
      attribute_loss(b.score.view(b.constants.sizes()), b.constants, b.denominators.labels);
  const double count = error.counts.sum().item<double>();
  LossResult out;
  out.loss = error.loss;
  out.statistics = {{"attributes/loss", error.squares.sum().item<double>(), count},
                    {"attributes/labels", count, 1, Statistic::Kind::kSum}};
  for (size_t a = 0; a < config_.attributes.size(); ++a) {
    const auto at = static_cast<int64_t>(a);
    out.statistics.push_back({"attributes/" + config_.attributes[a].first + "/mse",
                              error.squares[at].item<double>(),
                              error.counts[at].item<double>()});
  }
  return out;
}

std::vector<double> AttributeModel::label_weights() const {
  std::vector<double> out;
  for (const auto& [name, weight] : config_.attributes) out.push_back(weight);
  return out;
}

Metrics AttributeModel::evaluate_labels(const LabelledScores& rows) const {
  const AttributeLoss all = attribute_loss(rows.score, rows.labels, 1);
  const double count = all.counts.sum().item<double>();
  Metrics each;
  double correlation = 0, labelled = 0;
  at::Tensor score = at::zeros({rows.score.size(0)}, at::kDouble), label = score.clone();
  for (size_t a = 0; a < config_.attributes.size(); ++a) {
    const auto at = static_cast<int64_t>(a);
    const auto& [name, weight] = config_.attributes[a];
    if (weight != 0) {
      score = score + weight * rows.score.select(1, at);
      label = label + weight * rows.labels.select(1, at);
    }
    const double labels = all.counts[at].item<double>();
    if (labels == 0) continue;
    const double r = pearson(rows.score.select(1, at), rows.labels.select(1, at));
    correlation += r;
    labelled += 1;
    each.emplace_back(name + "/mse", all.squares[at].item<double>() / labels);
    each.emplace_back(name + "/pearson", r);
  }
  Metrics out{{"labels", count}};
  if (count > 0) {
    out.emplace_back("loss", all.loss.item<double>() / count);
    out.emplace_back("pearson", correlation / labelled);
  }
  const PairAccuracy pairs = pair_accuracy(score, label, rows.prompt);
  if (pairs.pairs > 0) out.emplace_back("accuracy", pairs.right / pairs.pairs);
  out.emplace_back("pairs", pairs.pairs);
  out.insert(out.end(), each.begin(), each.end());
  return out;
}

std::unique_ptr<Algorithm> make_attribute_model(AttributeModelConfig config) {
  return std::make_unique<AttributeModel>(std::move(config));
}

std::unique_ptr<Algorithm> make_attribute_model(const AlgorithmContext& context) {
  return make_attribute_model(AttributeModelConfig::from_yaml(context.config));
}

}  // namespace praetor
