#pragma once

#include "core/model/transformer.h"

namespace praetor {

/// A copy of `model` with weights in `dtype`, rounded to the nearest; of a shell
/// (core/model/model_weights.h) another one. Without `language_head` a
/// head of its own stays the very tensor of `model`, for who does not use it.
Transformer converted(const Transformer& model, at::ScalarType dtype, bool language_head = true);

/// The same model on `device`; of a shell a shell there. Tensors that are there already stay the
/// very ones. No gradients.
Transformer moved(const Transformer& model, at::Device device);

/// A model of the same shapes and types in the processor's memory, whose parameters have none yet.
Transformer host_shell(const Transformer& model);

}  // namespace praetor
