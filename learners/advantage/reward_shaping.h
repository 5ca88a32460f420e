#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "core/data/experience.h"
#include "learners/algorithms/kl.h"

namespace praetor {

struct RewardShaping {
  KlEstimator estimator = KlEstimator::kK1;
  double kl_coefficient = 0;   ///< beta, >= 0
  bool per_sample_kl = false;  ///< the sequence's whole penalty on its last token
  double score_clip = 0;       ///< c: scores to [-c, c]; 0: off
  double missing_eos_penalty =
      0;  ///< taken, after the clip, from the score of a sequence that did not finish
  /// Soft punishment of long responses (arXiv:2503.14476, eq. 13), also added after the clip:
  /// 0 up to L = overlong_limit - overlong_buffer tokens, (L - T) / overlong_buffer up to the
  /// limit, -1 beyond it and for a sequence that did not finish.
  double overlong_limit = 0;   ///< response tokens
  double overlong_buffer = 0;  ///< response tokens; 0: off
};

/// Score of a sequence, less the penalty where it did not finish.
double penalised_score(const Experience& experience, int64_t sequence, double missing_eos_penalty);

/// [N] bool from flags.
at::Tensor flags_tensor(const std::vector<bool>& flags);

struct ShapedReward {
  at::Tensor reward;  ///< [R] per token
  at::Tensor score;   ///< [N] clipped, penalties taken
  at::Tensor kl;      ///< [R] the estimate; undefined without a reference
};

/// Scores and a KL penalty to a reward per token (arXiv:1909.08593; arXiv:2203.02155).
///
///   reward_t = -beta k_n(proximal_t, reference_t);   reward_last += score
///
/// The last token is the last of the response, whether it ended itself or was cut. A sequence
/// without response tokens has no reward.
///
/// @param score               [N], normalised already where that is wanted
/// @param finished            [N] ended by a stop token or string
/// @param proximal_logprob    [R]
/// @param reference_logprob   [R], or undefined: no penalty
/// @param sequence_of         [R] int64, ascending
/// @throws ShapeError
ShapedReward shape_reward(const at::Tensor& score,
                          const std::vector<bool>& finished,
                          const at::Tensor& proximal_logprob,
                          const at::Tensor& reference_logprob,
                          const at::Tensor& sequence_of,
                          const RewardShaping& shaping);

}  // namespace praetor
