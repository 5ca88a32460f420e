#pragma once

#include <ATen/core/Tensor.h>

namespace praetor {

/// -(1 - e) log sigma(x) - e log sigma(-x), entry by entry. @param label_smoothing  e, in [0, 0.5)
at::Tensor sigmoid_pair_loss(const at::Tensor& x, double label_smoothing = 0);

struct BradleyTerryOptions {
  double label_noise = 0;  ///< epsilon: chance that a label is wrong, [0, 0.5)
  double centring = 0;     ///< c: pull of r_w + r_l to 0 (arXiv:2312.09244)
};

struct PairLoss {
  at::Tensor loss;     ///< scalar; carries the gradient
  at::Tensor correct;  ///< pairs whose chosen response scores higher (an equal score counts half)
  at::Tensor margin;   ///< sum of r_w - r_l
};

/// Negative log-likelihood of preferences under Bradley and Terry's model (arXiv:2203.02155, eq.
/// 1).
///
///   d = r_w - r_l
///   loss = sum(-(1 - epsilon) log sigmoid(d - m) - epsilon log sigmoid(m - d) + c (r_w + r_l)^2) /
///   pairs
///
/// @param chosen, rejected  [P] scores; carry the gradient
/// @param margin            [P] m, constant; undefined: 0
/// @param pairs             of the whole optimizer step, every rank
/// @throws ShapeError; InvalidArgument when pairs <= 0
PairLoss bradley_terry(const at::Tensor& chosen,
                       const at::Tensor& rejected,
                       const at::Tensor& margin,
                       double pairs,
                       BradleyTerryOptions options = {});

}  // namespace praetor
