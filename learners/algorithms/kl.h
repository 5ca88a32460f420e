#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace praetor {

/// Estimators of KL(policy || reference) from a token sampled from the policy; a = logprob -
/// reference_logprob.
///
///   k1 = a              unbiased, can be negative
///   k2 = a^2 / 2        biased, low variance; its gradient is the KL's when the samples are the
///   policy's k3 = e^-a - 1 + a   unbiased, never negative; its gradient is not the KL's
///
/// (J. Schulman, "Approximating KL divergence", 2020.)
enum class KlEstimator { kK1, kK2, kK3 };

/// An estimator as a loss: its own gradient, or k2's (names ending in "+").
struct KlForm {
  KlEstimator estimator = KlEstimator::kK1;
  bool straight_through = false;
};

/// "k1", "k2", "k3", "k1+", "k3+"
const std::vector<std::string>& kl_form_names();
/// @throws InvalidArgument for another word
KlForm kl_form_from_name(const std::string& name);

/// The estimate per token, [R] like both inputs; a is clamped to [-20, 20]. Not clamped otherwise:
/// for rewards and logs.
/// @throws ShapeError
at::Tensor kl_per_token(const at::Tensor& logprob,
                        const at::Tensor& reference_logprob,
                        KlEstimator estimator);

/// The estimate as a loss per token: k3 is clamped to [-10, 10], and the straight-through form is
/// k2 - sg[k2] + sg[k_n]. Outside the mask 0, also where the inputs are NaN there.
///
/// @param logprob            [R] carries the gradient
/// @param reference_logprob  [R] constant
/// @throws ShapeError
at::Tensor kl_loss_per_token(const at::Tensor& logprob,
                             const at::Tensor& reference_logprob,
                             const at::Tensor& mask,
                             KlForm form);

}  // namespace praetor
