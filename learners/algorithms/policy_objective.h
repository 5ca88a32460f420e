#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "learners/algorithm.h"
#include "learners/algorithms/aggregate.h"
#include "learners/algorithms/clipped_surrogate.h"
#include "learners/algorithms/kl.h"

namespace praetor {

/// What the probability ratio of a clipped surrogate speaks of.
enum class RatioKind {
  kToken,         ///< exp(logprob_t - proximal_logprob_t)
  kSequence,      ///< exp(sum_t (...)), one for all tokens of a sequence
  kSequenceMean,  ///< exp(mean_t (...)), likewise (arXiv:2507.18071, eq. 7)
};
/// "token", "sequence", "sequence_mean"
const std::vector<std::string>& ratio_names();
/// @throws InvalidArgument for another word
RatioKind ratio_from_name(const std::string& name);

/// Logarithm of the ratio of each sequence, laid out per token: [R], with the gradient of all its
/// masked tokens. That of kSequenceMean is at most 10.
/// @param kind  kSequence or kSequenceMean
/// @throws ShapeError
at::Tensor sequence_log_ratio(const at::Tensor& logprob,
                              const at::Tensor& proximal_logprob,
                              const at::Tensor& mask,
                              const at::Tensor& sequence_of,
                              int64_t sequences,
                              RatioKind kind);

struct PolicyObjective {
  ClipRange clip;
  RatioKind ratio = RatioKind::kToken;
  Aggregation aggregation = Aggregation::kTokenMean;
  int64_t max_tokens = 0;          ///< T_max of seq-mean-token-sum-norm
  double entropy_coefficient = 0;  ///< >= 0; above 0 the micro-batch must have entropies
  KlForm kl_form;
  double kl_coefficient = 0;  ///< of the KL term in the loss, >= 0; 0: none
};

/// The part of the loss that trains the policy, aggregated as asked:
///
///   f_t = clipped_surrogate(ratio, advantage_t) + kl_coefficient k_n(policy, reference)
///         - entropy_coefficient H_t
///
/// and its statistics, policy/...; the KL to the proximal policy is always counted per token.
LossResult policy_objective(const MicroBatch& batch, const PolicyObjective& settings);

}  // namespace praetor
