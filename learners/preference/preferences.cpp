#include "learners/preference/preferences.h"

#include "core/base/error.h"
#include "core/base/sigmoid.h"
#include "learners/advantage/reward_shaping.h"

namespace praetor {

PreferenceSource preference_source_from_yaml(YamlReader& in) {
  return in.get("preference", "scores", {"scores", "pairwise"}) == "pairwise"
             ? PreferenceSource::kPairwise
             : PreferenceSource::kScores;
}

Preferences::Preferences(const Experience& experience,
                         PreferenceSource source,
                         double missing_eos_penalty)
    : experience_(experience), source_(source) {
  for (int64_t i = 0; i < experience.sequences(); ++i)
    scores_.push_back(penalised_score(experience, i, missing_eos_penalty));
}

std::optional<double> Preferences::said(int64_t i, int64_t j) const {
  if (experience_.preferences.empty()) return std::nullopt;
  const int32_t rival = experience_.sample_index[static_cast<size_t>(j)];
  for (const Preference& one : experience_.preferences[static_cast<size_t>(i)]) {
    if (one.rival == rival) return one.probability;
  }
  return std::nullopt;
}

double Preferences::operator()(int64_t i, int64_t j) const {
  if (i == j) return 0.5;
  if (source_ == PreferenceSource::kScores) {
    return sigmoid(scores_[static_cast<size_t>(i)] - scores_[static_cast<size_t>(j)]);
  }
  if (const auto there = said(i, j)) return *there;
  if (const auto back = said(j, i)) return 1 - *back;
  throw ShapeError("experience: samples ",
                   experience_.sample_index[static_cast<size_t>(i)],
                   " and ",
                   experience_.sample_index[static_cast<size_t>(j)],
                   " of prompt ",
                   experience_.prompt_ordinal[static_cast<size_t>(i)],
                   " were not compared; does rewards have a part of kind preference?");
}

std::optional<double> Preferences::mean(int64_t i, const std::vector<int64_t>& rivals) const {
  if (rivals.empty()) return std::nullopt;
  double sum = 0;
  for (const int64_t j : rivals) sum += (*this)(i, j);
  return sum / static_cast<double>(rivals.size());
}

}  // namespace praetor
