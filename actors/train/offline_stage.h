#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "actors/train/stage_runner.h"
#include "core/data/example.h"
#include "core/data/pair_question.h"
#include "core/data/row_order.h"
#include "reward/models/reward_file.h"

namespace praetor {

/// Stages that learn from a file: sft (a policy from completions), reward_model (a scalar model
/// from pairs), attribute_model (one of several numbers from labelled completions), attribute_probe
/// (the same by its head alone), attribute_gate (a gate over those from pairs), preference_model (a
/// language model from questions about pairs), dpo (a policy from pairs).
class OfflineStage final : public StageRunner {
 public:
  OfflineStage(RunContext& context, const StageConfig& stage);

 protected:
  StepResult train_step(int64_t step) override;
  StepReport replay_step(int64_t step) override;
  MetricList evaluate(int64_t step) override;
  void write_result(const std::filesystem::path& folder) override;

 private:
  /// Examples of one row: one, or chosen and rejected, or the question in both orders.
  using RowExamples = std::vector<Example>;
  /// The reward model that training starts from.
  void open_scalar_model(LearnerModels& models) const;
  /// The gate that training starts from, over the attributes of `model`, corrected by the first
  /// rows of train_. @throws DataError when the model lacks the attribute to correct for
  std::unique_ptr<AttributeGate> make_gate(const ScalarModel& model, const GatePlan& plan) const;
  /// The reward model's mean and deviation beside its weights, a gate's own file too.
  void write_moments(const std::filesystem::path& folder);
  /// Names and weights of what the model of the stage gives.
  std::vector<Attribute> described_attributes() const;
  /// What `model` says of the first `count` responses of train_ (or fewer), [N,A] float64.
  at::Tensor numbers_of(const ScalarModel& model, size_t count) const;
  std::vector<RowExamples> read_examples(const Source& source, int64_t eos) const;
  /// Tokens of the question's answers. @throws DataError naming the tokenizer's folder
  std::array<int64_t, 2> answers() const;
  /// Gives all rows the reference's log-probabilities; RUN_DIR/reference keeps them.
  void add_reference();
  std::vector<SampleId> rows_of_step(int64_t step) const;
  std::vector<Example> examples_of(const std::vector<SampleId>& ids);

  bool trains_policy_ = true;
  RowForm form_ = RowForm::kCompletion;
  std::optional<PairQuestion> question_;  ///< that pairs are asked about
  std::vector<std::string> labels_;       ///< fields of the rows
  int64_t per_step_ = 1;
  std::vector<RowExamples> train_, eval_;
  std::unique_ptr<RowOrder> order_;  ///< of train_
};

}  // namespace praetor
