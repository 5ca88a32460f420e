#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "core/config/yaml_reader.h"
#include "learners/algorithm.h"

namespace praetor {

/// Section `mismatch` of an algorithm: the samples are the engine's, whose numbers (and, late,
/// whose weights) differ from the learner's at the start of the update. With
/// d_t = proximal_logprob_t - behavior_logprob_t the policy term of token t is weighted by
///
///   token_tis      clip(exp(d_t), floor, cap)
///   token_mis      exp(d_t), or 0 outside [floor, cap]
///   sequence_tis   clip(exp(sum_t d_t), floor, cap)
///   sequence_mask  1; sequences whose exp(mean_t d_t) is outside [floor, cap] are left out
struct MismatchConfig {
  std::string correction = "none";
  double cap = 2;    ///< > 0
  double floor = 0;  ///< [0, cap); default 0.5 of token_mis and sequence_mask

  static MismatchConfig from_yaml(YamlReader in);
};

struct MismatchWeights {
  at::Tensor weight;  ///< [R] constant, 0 outside the mask; undefined without a correction
  at::Tensor mask;    ///< [R] what is left of the mask given
  Metrics metrics;    ///< mismatch/...
};

/// Weights of truncated and of masked importance sampling. They multiply the policy term alone,
/// which is to multiply the advantages: min(r w A, clip(r) w A) = w min(r A, clip(r) A) as w >= 0.
///
/// @param proximal_logprob, behavior_logprob  [R]; may be NaN outside the mask
/// @param mask                                [R] bool
/// @param sequence_of                         [R] int64, ascending
/// @throws ShapeError
MismatchWeights mismatch_weights(const at::Tensor& proximal_logprob,
                                 const at::Tensor& behavior_logprob,
                                 const at::Tensor& mask,
                                 const at::Tensor& sequence_of,
                                 const MismatchConfig& config);

}  // namespace praetor
