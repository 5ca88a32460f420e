#include "learners/algorithms/ridge.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/base/str.h"

namespace praetor {

RidgeSums ridge_sums(const at::Tensor& features, const at::Tensor& labels) {
  if (features.dim() != 2 || labels.dim() != 1 || features.size(0) != labels.size(0))
    throw ShapeError("ridge: features ", features.sizes(), " for labels ", labels.sizes());
  const at::Tensor labelled = labels.isnan().logical_not().nonzero().view(-1);
  const at::Tensor h = features.index_select(0, labelled).to(at::kDouble);
  const at::Tensor y = labels.index_select(0, labelled).to(at::kDouble);
  return {.gram = h.t().mm(h),
          .moment = h.t().mv(y),
          .squares = y.square().sum().item<double>(),
          .count = static_cast<double>(labelled.numel())};
}

RidgeSums operator+(const RidgeSums& a, const RidgeSums& b) {
  if (a.gram.sizes() != b.gram.sizes())
    throw ShapeError("ridge: sums of ", a.gram.sizes(), " and of ", b.gram.sizes());
  return {.gram = a.gram + b.gram,
          .moment = a.moment + b.moment,
          .squares = a.squares + b.squares,
          .count = a.count + b.count};
}

at::Tensor ridge_weights(const RidgeSums& sums, double alpha) {
  if (!(alpha > 0)) throw InvalidArgument("ridge: alpha is ", alpha, ", but must be above 0");
  at::Tensor system = sums.gram.clone();
  system.diagonal().add_(alpha);
  const auto [lower, info] = at::linalg_cholesky_ex(system);
  const at::Tensor out = at::cholesky_solve(sums.moment.unsqueeze(1), lower).squeeze(1);
  // With alpha above 0 the system is positive definite, unless its numbers are none.
  if (info.item<int32_t>() != 0 || !out.isfinite().all().item<bool>()) {
    throw DataError("the normal equations of ",
                    sums.count,
                    " labels have no finite solution with alpha ",
                    alpha,
                    "; are features and labels finite, and is alpha not far below the features?");
  }
  return out;
}

double ridge_error(const RidgeSums& sums, const at::Tensor& weights) {
  const double total =
      (weights.dot(sums.gram.mv(weights)) - 2 * weights.dot(sums.moment)).item<double>() +
      sums.squares;
  return std::max(total, 0.0) / sums.count;
}

RidgeFit fit_ridge(const RidgeSums& taught,
                   const RidgeSums& held_out,
                   const std::vector<double>& alphas) {
  if (alphas.empty()) throw InvalidArgument("ridge: there is no alpha");
  const bool chooses = alphas.size() > 1;
  const RidgeSums all = taught + held_out;
  if (all.count == 0 || (chooses && (taught.count == 0 || held_out.count == 0))) {
    throw DataError(all.count,
                    " labels are too few",
                    chooses ? str(": ",
                                  held_out.count,
                                  " of them are held out to choose alpha by, and ",
                                  taught.count,
                                  " learnt from; both want one at least")
                            : str(": one at least is wanted"));
  }
  RidgeFit out{.alpha = alphas.front()};
  for (size_t i = 0; chooses && i < alphas.size(); ++i) {
    const double error = ridge_error(held_out, ridge_weights(taught, alphas[i]));
    if (i > 0 && !(error < out.held_out_error)) continue;
    out.alpha = alphas[i];
    out.held_out_error = error;
  }
  out.weights = ridge_weights(all, out.alpha);
  return out;
}

at::Tensor held_out_rows(int64_t rows, double share) {
  at::Tensor out = at::zeros({rows}, at::kBool);
  bool* held = out.mutable_data_ptr<bool>();
  for (int64_t i = 0; i < rows; ++i) {
    const auto upto = [&](int64_t n) { return std::floor(static_cast<double>(n) * share); };
    held[i] = upto(i + 1) > upto(i);
  }
  return out;
}

}  // namespace praetor
