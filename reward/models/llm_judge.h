#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/data/text_template.h"
#include "reward/judges/fields.h"
#include "reward/models/answer_model.h"
#include "reward/models/batch_part.h"

namespace praetor {

struct LlmJudgeConfig {
  AnswerModelConfig model;
  TextTemplate text;               ///< of {prompt}, {response}, {reference}, {categories}
  std::optional<Field> reference;  ///< given exactly when the text holds it
  Missing missing = Missing::kError;
  std::string categories;  ///< a line each

  /// Reads and checks the keys of a part of kind "llm_judge". Unknown keys are the caller's to
  /// reject.
  static LlmJudgeConfig from_yaml(YamlReader& in);
};

/// A language model asked about one response (Xu et al. 2024, arXiv:2409.20370, section 4.1.4):
/// score P(positive), passed when P(positive) > P(negative); a tie is a violation.
class LlmJudge final : public BatchPart {
 public:
  /// @throws as AnswerModel::load
  static std::unique_ptr<LlmJudge> load(const std::filesystem::path& folder,
                                        const LlmJudgeConfig& config);
  std::vector<BatchResult> score(std::span<const BatchItem> items) const override;

 private:
  LlmJudge(std::unique_ptr<AnswerModel> model, LlmJudgeConfig config)
      : model_(std::move(model)), config_(std::move(config)) {}
  std::string question(const Sample& sample, const std::string& reference) const;

  std::unique_ptr<AnswerModel> model_;
  LlmJudgeConfig config_;
};

}  // namespace praetor
