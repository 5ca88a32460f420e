#include "learners/algorithms/bradley_terry.h"

#include <ATen/ATen.h>

#include "core/base/error.h"
#include "learners/algorithms/checks.h"

namespace praetor {

at::Tensor sigmoid_pair_loss(const at::Tensor& x, double label_smoothing) {
  const at::Tensor right = at::softplus(-x) * (1 - label_smoothing);
  return label_smoothing > 0 ? right + at::softplus(x) * label_smoothing : right;
}

PairLoss bradley_terry(const at::Tensor& chosen,
                       const at::Tensor& rejected,
                       const at::Tensor& margin,
                       double pairs,
                       BradleyTerryOptions options) {
  require_same_shape("bradley_terry", chosen, {{"rejected", rejected}});
  if (margin.defined()) require_same_shape("bradley_terry", chosen, {{"margin", margin}});
  if (!(pairs > 0))
    throw InvalidArgument("bradley_terry: pairs is ", pairs, ", but must be above 0");

  const at::Tensor d = chosen - rejected;
  const at::Tensor z = margin.defined() ? d - margin : d;
  at::Tensor per_pair = sigmoid_pair_loss(z, options.label_noise);
  if (options.centring > 0) per_pair = per_pair + options.centring * (chosen + rejected).square();

  const at::Tensor gap = d.detach();
  PairLoss out;
  out.loss = per_pair.sum() / pairs;
  out.correct = gap.gt(0).sum().to(at::kDouble) + gap.eq(0).sum().to(at::kDouble) / 2;
  out.margin = gap.sum();
  return out;
}

}  // namespace praetor
