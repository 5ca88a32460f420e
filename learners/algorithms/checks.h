#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <utility>

namespace praetor {

/// @throws ShapeError "FUNCTION: NAME is [3], but wanted [4]" for the first of `others` whose shape
/// is not `like`'s
void require_same_shape(const char* function,
                        const at::Tensor& like,
                        std::initializer_list<std::pair<const char*, const at::Tensor&>> others);

/// @throws ShapeError when `sequence_of` is not a vector of int64 that never descends and starts at
/// 0 or above
void require_ascending(const char* function, const at::Tensor& sequence_of);

}  // namespace praetor
