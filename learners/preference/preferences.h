#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "core/data/experience.h"

namespace praetor {

/// Where P(y preferred to y'; x) comes from.
enum class PreferenceSource {
  kScores,    ///< sigma(r(y) - r(y')), the Bradley-Terry model of scalar rewards
  kPairwise,  ///< what the reward workers said of the two side by side; need not be transitive
};
/// Key `preference` of an algorithm's section: scores, pairwise.
PreferenceSource preference_source_from_yaml(YamlReader& in);

/// P(y preferred to y'; x) between samples of one prompt: P(y, y') + P(y', y) = 1, P(y, y) = 1/2.
class Preferences {
 public:
  /// @param missing_eos_penalty  taken from the score of a sample that did not end itself; means
  /// nothing with kPairwise
  Preferences(const Experience& experience, PreferenceSource source, double missing_eos_penalty);

  /// Of sequence `i` over sequence `j`. @throws ShapeError when nobody compared the two
  double operator()(int64_t i, int64_t j) const;
  /// Mean over `rivals`; nothing without any.
  std::optional<double> mean(int64_t i, const std::vector<int64_t>& rivals) const;

 private:
  std::optional<double> said(int64_t i, int64_t j) const;

  const Experience& experience_;
  PreferenceSource source_;
  std::vector<double> scores_;
};

}  // namespace praetor
