#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "learners/algorithm.h"
#include "learners/preference/preferences.h"

namespace praetor {

/// What the policy-gradient methods of the preference game have in common (arXiv:2312.00886,
/// section 7): ascend E[ grad log pi(y) (P(y > y') - 1/2 - tau log(pi(y) / ref(y))) ] for y of the
/// policy and y' of an opponent. They differ in whom they play against.
struct NashConfig {
  double kl_coefficient = 0.008;  ///< tau, >= 0
  /// How the KL's log-ratio meets the gradient of token t:
  ///   reward_to_go  sum over tokens from t on; unbiased
  ///   sequence      sum over all tokens; unbiased, of higher variance
  ///   token         that of token t alone; biased towards the reference's short sight
  std::string kl_form = "reward_to_go";
  PreferenceSource preference = PreferenceSource::kScores;
  int64_t opponents = 1;           ///< m, responses of the opponent to each prompt, >= 1
  double missing_eos_penalty = 0;  ///< on the score of a response that did not end itself
  int64_t prompts_per_step = 64;
  int64_t samples_per_prompt = 1;

  static NashConfig from_yaml(YamlReader& in);
};

/// Coefficients of the log-probabilities of all response tokens, [R], without gradient:
/// P - 1/2 - tau (log-ratio in `kl_form`).
/// @param probability        [N] P(y > y'), a mean over opponents
/// @param logprob            [R] policy
/// @param reference_logprob  [R]
/// @param sequence_of        [R] int64, ascending
at::Tensor nash_coefficients(const at::Tensor& probability,
                             const at::Tensor& logprob,
                             const at::Tensor& reference_logprob,
                             const at::Tensor& sequence_of,
                             double kl_coefficient,
                             const std::string& kl_form);

struct NashPlayers {
  std::string name;                  ///< of the algorithm
  VoicePlan opponent;                ///< samples: NashConfig::opponents
  std::optional<AnchorPlan> anchor;  ///< when the opponent is one
  int64_t reference_samples = 0;  ///< of the reference, to be measured against; not with an anchor
};

std::unique_ptr<Algorithm> make_nash(NashConfig config, NashPlayers players);

}  // namespace praetor
