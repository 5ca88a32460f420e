#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "core/config/yaml_reader.h"
#include "learners/algorithm.h"

namespace praetor {

/// Direct preference optimisation (arXiv:2305.18290): a policy from pairs, without a reward model.
/// Delta(y) = log pi(y|x) - log pi_ref(y|x), summed over the response; h = Delta(y_w) - Delta(y_l).
///
///   loss = -(1 - e) log sigma(beta h) - e log sigma(-beta h),  mean over the pairs of a step
///
/// e > 0 is label smoothing ("conservative DPO"). The reference is the policy as the stage began: a
/// copy that each step asks, or asked about all rows once, before the first step.
struct DpoConfig {
  int64_t batch_size = 64;       ///< pairs of an update, >= 1
  double beta = 0.1;             ///< > 0; how strongly the reference holds
  double label_smoothing = 0.0;  ///< e in [0, 0.5): share of pairs that are labelled wrongly
  bool precomputed = false;      ///< `reference`: the rows carry its log-probabilities
  static DpoConfig from_yaml(YamlReader in);
};

/// What pairs say, from [N] log-ratios Delta to the reference (chosen, rejected, chosen, ...).
struct DpoLoss {
  at::Tensor loss;      ///< scalar; carries the gradient
  at::Tensor chosen;    ///< [N / 2] beta Delta(y_w), the implicit reward; constant
  at::Tensor rejected;  ///< [N / 2] beta Delta(y_l); constant
};
/// @param pairs  of the whole step, > 0
/// @throws ShapeError for an odd number of sequences; InvalidArgument when pairs <= 0
DpoLoss dpo_loss(const at::Tensor& log_ratio, double pairs, const DpoConfig& config);

std::unique_ptr<Algorithm> make_dpo(DpoConfig config);

}  // namespace praetor
