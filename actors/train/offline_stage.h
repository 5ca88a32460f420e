#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "actors/train/stage_runner.h"
#include "core/data/example.h"
#include "core/data/pair_question.h"
#include "core/data/row_order.h"

namespace praetor {

/// Stages that learn from a file: sft (a policy from completions), reward_model (a scalar model
/// from pairs), preference_model (a language model from questions about pairs), dpo (a policy from
/// pairs).
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
  int64_t per_step_ = 1;
  std::vector<RowExamples> train_, eval_;
  std::unique_ptr<RowOrder> order_;  ///< of train_
};

}  // namespace praetor
