#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/data/pair_question.h"
#include "reward/models/answer_model.h"
#include "reward/models/batch_part.h"
#include "reward/models/reward_model.h"

namespace praetor {

/// Exactly one of the two forms, where the section has no errors.
struct PreferenceConfig {
  std::optional<RewardModelConfig> scalar;
  std::optional<AnswerModelConfig> generative;
  PairQuestion question;  ///< generative

  /// Reads and checks the keys of a part of kind "preference". Unknown keys are the caller's to
  /// reject.
  static PreferenceConfig from_yaml(YamlReader& in);
  ModelFolder folder() const;
};

/// A judge of pairs that prefers what it reads first, or second, is made fair by asking both ways:
///   P(a > b) = 1/2 (first_ab + 1 - first_ba)
/// @param first_ab  P(the one read first is better) with a first
/// @param first_ba  the same with b first
double symmetrised(double first_ab, double first_ba);

/// How likely each response is preferred to each of its rivals:
///   generative  a language model that answers which of two replies is better, asked both ways
///   scalar      sigma(r_a - r_b) of a Bradley-Terry model, which knows no cycles
/// The score is the mean over the rivals given, passed when it is above 1/2; a sample without
/// rivals is not applicable. One rival that cannot be compared is an error of the sample.
class PreferencePart : public BatchPart {
 public:
  /// @throws as AnswerModel::load and RewardModel::load
  static std::unique_ptr<PreferencePart> load(const std::filesystem::path& folder,
                                              const PreferenceConfig& config);
  std::vector<BatchResult> score(std::span<const BatchItem> items) const override;

  /// One question: is `response` better than `rival`? All borrowed.
  struct Pair {
    const Sample* sample = nullptr;
    const std::string* rival = nullptr;
  };

 private:
  virtual std::vector<AnswerModel::Result> compare(const std::vector<Pair>& pairs) const = 0;
};

}  // namespace praetor
