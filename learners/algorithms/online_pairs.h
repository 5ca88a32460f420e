#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/config/yaml_reader.h"
#include "learners/algorithm.h"
#include "learners/preference/preferences.h"

namespace praetor {

/// Log-probabilities of whole responses, p pairs of them: [p,2], the first of each pair before the
/// second. All but `policy` are constant.
struct PairLogprobs {
  at::Tensor policy;  ///< carries the gradient
  at::Tensor reference;
  at::Tensor anchor;  ///< undefined without an anchor
  at::Tensor win;     ///< how likely each is preferred, as `PairChoice` says
  at::Tensor other;   ///< 1 for a response that is not the policy's, else 0

  /// Difference of the two log-ratios to the reference, first minus second, [p].
  at::Tensor gap() const;
};

/// Which two responses of a prompt make its pair, of all that are trained on.
enum class PairChoice {
  kFirstTwo,   ///< as they come; `win` is P(one preferred to the other)
  kBestWorst,  ///< the two with the highest and the lowest mean preference over all of them (over
               ///< itself 1/2); `win` is that mean
};

/// What online methods of pairs read alike.
struct PairsConfig {
  PreferenceSource preference = PreferenceSource::kScores;
  double missing_eos_penalty = 0;  ///< on the score of a response that did not end itself
  int64_t prompts_per_step = 64;
  int64_t epochs = 1;
  int64_t minibatches = 1;

  static PairsConfig from_yaml(YamlReader& in);
};

/// Loss of each pair, [p], with what it reports of each.
struct PairLosses {
  at::Tensor loss;
  std::vector<std::pair<std::string, at::Tensor>> figures;
};

/// An online method that learns from one pair of responses to each prompt: how they are drawn and
/// chosen is said here, the loss is a function.
struct OnlinePairs {
  std::string name;
  PairsConfig config;
  int64_t samples_per_prompt = 2;  ///< of the policy
  PairChoice choice = PairChoice::kFirstTwo;
  std::vector<VoicePlan> others;
  std::optional<AnchorPlan> anchor;
  bool ordered = false;  ///< the preferred one is first, and ties are dropped
  std::function<PairLosses(const PairLogprobs&)> loss;
};

/// Its metrics, beside those of the loss: NAME/pairs, NAME/skipped (prompts without a pair: equal
/// responses, ties, lost samples), NAME/win_gap (mean of `win` first minus second), objective/kl.
std::unique_ptr<Algorithm> make_online_pairs(OnlinePairs method);

}  // namespace praetor
