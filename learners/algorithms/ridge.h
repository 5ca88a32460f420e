#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace praetor {

/// What ridge regression needs to know of rows (h_i, y_i), float64. Sums of disjoint rows add up.
struct RidgeSums {
  at::Tensor gram;     ///< [H,H] sum of h h'
  at::Tensor moment;   ///< [H] sum of y h
  double squares = 0;  ///< sum of y^2
  double count = 0;    ///< rows with a label
};

/// Sums over the rows that have a label.
/// @param features  [n,H]
/// @param labels    [n]; NaN where one is missing, whose row does not count
/// @throws ShapeError
RidgeSums ridge_sums(const at::Tensor& features, const at::Tensor& labels);
/// @throws ShapeError
RidgeSums operator+(const RidgeSums& a, const RidgeSums& b);

/// The minimum of sum_i (w h_i - y_i)^2 + alpha |w|^2, [H] float64, from its normal equations
/// (gram + alpha) w = moment by Cholesky's decomposition. There is no intercept.
/// @throws InvalidArgument when alpha <= 0; DataError when the sums are not finite
at::Tensor ridge_weights(const RidgeSums& sums, double alpha);

/// Mean squared error of w over the rows of `sums`, (w' gram w - 2 w moment + squares) / count.
double ridge_error(const RidgeSums& sums, const at::Tensor& weights);

struct RidgeFit {
  at::Tensor weights;  ///< [H] float64
  double alpha = 0;
  double held_out_error = 0;  ///< of that alpha before the held-out rows were learnt too
};

/// Of several `alphas` that with which the rows of `taught` predict those of `held_out` best (of
/// equal ones the first); the weights are then of both together. Of a single one nothing is asked.
/// @throws DataError when a part has no label that is needed of it; as ridge_weights does
RidgeFit fit_ridge(const RidgeSums& taught,
                   const RidgeSums& held_out,
                   const std::vector<double>& alphas);

/// Which rows are held out, [rows] bool: row i when (i + 1) * share passes a whole number, so that
/// they are spread evenly, floor(n * share) of the first n.
at::Tensor held_out_rows(int64_t rows, double share);

}  // namespace praetor
