#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/config/yaml_reader.h"
#include "learners/algorithm.h"

namespace praetor {

/// Fields of the rows that hold labels, and their weights in the score.
using AttributeWeights = std::vector<std::pair<std::string, double>>;

/// Key `attributes` of a section.
AttributeWeights attributes_from_yaml(YamlReader& in, AttributeWeights fallback);

/// Section `attribute_model` of a stage.
struct AttributeModelConfig {
  int64_t batch_size = 32;  ///< rows of one optimizer step, >= 1; 0: all rows
  /// Defaults: those of HelpSteer2 and of the 70B model trained on it (arXiv:2406.08673).
  AttributeWeights attributes = {{"helpfulness", 0.65},
                                 {"correctness", 0.8},
                                 {"coherence", 0.45},
                                 {"complexity", 0.55},
                                 {"verbosity", -0.4}};
  static AttributeModelConfig from_yaml(YamlReader in);
};

struct AttributeLoss {
  at::Tensor loss;     ///< scalar; carries the gradient
  at::Tensor squares;  ///< [A] float64, sums of squared errors
  at::Tensor counts;   ///< [A] float64, labels
};

/// Squared error of several attributes, of which labels may be missing (Wang et al. 2024,
/// arXiv:2406.08673):
///
///   loss = sum over labelled (i, a) of (score_ia - label_ia)^2 / count
///
/// @param score   [n,A]
/// @param labels  [n,A]; NaN where one is missing, which reaches neither loss nor gradient
/// @param count   labels of the whole optimizer step, every rank
/// @throws ShapeError; InvalidArgument when count <= 0
AttributeLoss attribute_loss(const at::Tensor& score, const at::Tensor& labels, double count);

/// Correlation of two vectors over the entries where neither is NaN; 0 where one is constant there.
double pearson(const at::Tensor& x, const at::Tensor& y);

struct PairAccuracy {
  double right = 0;  ///< ties of the score count half
  double pairs = 0;
};

/// How often the score tells which of two rows of a prompt is labelled higher.
/// @param score, label  [N]; pairs with a NaN, or with equal labels, are not counted
/// @param prompt        [N]
PairAccuracy pair_accuracy(const at::Tensor& score,
                           const at::Tensor& label,
                           const std::vector<int64_t>& prompt);

/// A scalar model of several numbers, taught by labels.
class AttributeModel : public Algorithm {
 public:
  explicit AttributeModel(AttributeModelConfig config) : config_(std::move(config)) {}

  std::string name() const override { return "attribute_model"; }
  ModelPlan models() const override;
  SamplePlan sample_plan() const override;
  ScorePlan score_plan() const override { return ScorePlan::kNone; }
  Headline headline() const override { return {"eval/pearson", true, "attributes/loss"}; }
  LossResult loss(const MicroBatch& b) const override;
  std::vector<double> label_weights() const override;
  Metrics evaluate_labels(const LabelledScores& rows) const override;

 private:
  AttributeModelConfig config_;
};

std::unique_ptr<Algorithm> make_attribute_model(AttributeModelConfig config);

}  // namespace praetor
