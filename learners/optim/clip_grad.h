#pragma once

#include <vector>

#include "core/model/transformer.h"

namespace praetor {

/// Sum of the squares of all gradients together, in float64, in a fixed order (of tensors on
/// another device in that of its sums). Tensors without a gradient count 0.
double grad_square_sum(const std::vector<NamedTensor>& parameters);

/// Euclidean norm of all gradients together: the root of grad_square_sum.
double grad_norm(const std::vector<NamedTensor>& parameters);

/// Scales all gradients by max_norm / (norm + 1e-6) when that is below 1; max_norm 0 leaves them.
void scale_gradients(const std::vector<NamedTensor>& parameters, double norm, double max_norm);

/// Scales by the gradients' own norm. @return the norm before clipping
double clip_grad_norm(const std::vector<NamedTensor>& parameters, double max_norm);

}  // namespace praetor
