#pragma once

#include <vector>

#include "core/model/transformer.h"

namespace praetor {

/// Euclidean norm of all gradients together, summed in float64 in a fixed order. Tensors without a
/// gradient count 0.
double grad_norm(const std::vector<NamedTensor>& parameters);

/// Scales all gradients by max_norm / (norm + 1e-6) when that is below 1; max_norm 0 leaves them.
/// @return the norm before clipping
double clip_grad_norm(const std::vector<NamedTensor>& parameters, double max_norm);

}  // namespace praetor
