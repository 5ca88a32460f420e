#include "learners/algorithms/kl.h"

#include <ATen/ATen.h>

#include "core/base/error.h"
#include "core/base/text.h"
#include "learners/algorithms/checks.h"

namespace praetor {
namespace {

at::Tensor estimate(const at::Tensor& a, KlEstimator estimator) {
  switch (estimator) {
    case KlEstimator::kK1:
      return a;
    case KlEstimator::kK2:
      return a.square() / 2;
    case KlEstimator::kK3:
      return a.neg().expm1() + a;  // e^-a - 1 without the cancellation near 0
  }
  throw InternalError("kl: no such estimator");
}

}  // namespace

const std::vector<std::string>& kl_form_names() {
  static const std::vector<std::string> kNames{"k1", "k2", "k3", "k1+", "k3+"};
  return kNames;
}

KlForm kl_form_from_name(const std::string& name) {
  if (name == "k1") return {KlEstimator::kK1, false};
  if (name == "k2") return {KlEstimator::kK2, false};
  if (name == "k3") return {KlEstimator::kK3, false};
  if (name == "k1+") return {KlEstimator::kK1, true};
  if (name == "k3+") return {KlEstimator::kK3, true};
  throw InvalidArgument(
      "KL estimator \"", name, "\" is not known; there are ", join(kl_form_names(), ", "));
}

at::Tensor kl_per_token(const at::Tensor& logprob,
                        const at::Tensor& reference_logprob,
                        KlEstimator estimator) {
  require_same_shape("kl", logprob, {{"reference_logprob", reference_logprob}});
  return estimate((logprob - reference_logprob).clamp(-20, 20), estimator);
}

at::Tensor kl_loss_per_token(const at::Tensor& logprob,
                             const at::Tensor& reference_logprob,
                             const at::Tensor& mask,
                             KlForm form) {
  require_same_shape(
      "kl_loss", logprob, {{"reference_logprob", reference_logprob}, {"mask", mask}});
  // Filled before exp: a NaN or an infinity outside the mask would come back through the gradient.
  const at::Tensor off = mask.logical_not();
  const at::Tensor a =
      (logprob.masked_fill(off, 0.0) - reference_logprob.masked_fill(off, 0.0)).clamp(-20, 20);
  at::Tensor value = estimate(a, form.estimator);
  if (form.estimator == KlEstimator::kK3) value = value.clamp(-10, 10);
  if (!form.straight_through) return value;
  const at::Tensor k2 = estimate(a, KlEstimator::kK2);
  return k2 - k2.detach() + value.detach();
}

}  // namespace praetor
