#pragma once

#include "core/model/transformer.h"

namespace praetor {

/// A copy of `model` with weights in `dtype`, rounded to the nearest; of a shell
/// (core/model/model_weights.h) another one. Without `language_head` a
/// head of its own stays the very tensor of `model`, for who does not use it.
Transformer converted(const Transformer& model, at::ScalarType dtype, bool language_head = true);

}  // namespace praetor
