#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/data/sample.h"

namespace praetor {

/// Scored rollouts ready for a learner: ragged, nothing padded. N sequences, T tokens, R response
/// tokens. Sequences stand in sample order (prompt ordinal, then sample index), which is part of
/// the batch manifest.
struct Experience {
  at::Tensor tokens;             ///< [T] int64, prompt plus response of each sequence, end to end
  std::vector<int64_t> offsets;  ///< [N+1] into tokens
  std::vector<int64_t> prompt_lengths;  ///< [N]
  at::Tensor sequence_of;               ///< [R] int64, ascending
  at::Tensor behavior_logprob;          ///< [R] float32, the engine's, tempered
  at::Tensor score;                     ///< [N] float32
  std::vector<bool> finished;           ///< [N] ended by a stop token or string, not by length
  std::vector<int64_t> prompt_ordinal;  ///< [N]
  std::vector<int32_t> sample_index;    ///< [N]
  std::vector<int64_t> weight_version;  ///< [N] step of the weights that sampled its first token
  /// [R] int64, of the weights each token was drawn from; undefined: all of its sequence's.
  at::Tensor token_version;
  std::vector<int32_t> voice;  ///< [N] 0: the policy; i: SamplePlan::others[i - 1]
  std::vector<int8_t>
      satisfied;  ///< [N] 1: all constraints hold; 0: one does not; -1: there are none
  std::vector<std::string> task;                     ///< [N] of the prompt; empty without tasks
  std::vector<std::vector<Preference>> preferences;  ///< [N]
  /// Of the first reward part that gives several numbers: their names, their values and their
  /// weights in that part's score. Empty and undefined without one.
  std::vector<std::string> attribute_names;  ///< [A]
  at::Tensor attributes;                     ///< [N,A] float64
  at::Tensor attribute_weights;              ///< [N,A] float64

  // Filled by the learner before the update; [R] float32, constant.
  at::Tensor proximal_logprob;
  at::Tensor reference_logprob;
  at::Tensor anchor_logprob;
  at::Tensor value;
  at::Tensor reward;  ///< per token, KL penalty and score
  at::Tensor advantage;
  at::Tensor returns;

  int64_t sequences() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t response_length(int64_t i) const {
    const auto k = static_cast<size_t>(i);
    return offsets[k + 1] - offsets[k] - prompt_lengths[k];
  }
};

}  // namespace praetor
