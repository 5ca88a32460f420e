#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace praetor::testing {

/// Largest |analytic - central difference| over the entries of `x` (float64) of the scalar function
/// `f`.
double gradient_error(const std::function<at::Tensor(const at::Tensor&)>& f,
                      const at::Tensor& x,
                      double h = 1e-6);

/// A float64 vector.
at::Tensor vec(std::vector<double> values);
/// A bool vector from 0s and 1s.
at::Tensor mask_of(std::vector<int> values);
/// An int64 vector.
at::Tensor ids(std::vector<int64_t> values);

}  // namespace praetor::testing
