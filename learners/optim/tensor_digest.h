#pragma once

#include <ATen/core/Tensor.h>

#include "core/base/sha256.h"

namespace praetor {

/// Takes in the elements of a tensor: on the CPU their bytes. On another device a number made of
/// their bits there, so that neither the tensor nor its hash passes through the processor: the sum
/// over i of (2 i + 1) b_i modulo 2^64, b_i being element i's bits. It has no order, and a single
/// element that is another changes it; it says that two tensors are not the same, and protects from
/// nobody.
void add_to_digest(Sha256& digest, const at::Tensor& tensor);

}  // namespace praetor
