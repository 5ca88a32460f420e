#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace praetor {

/// Puts `values` through one node of autograd that changes nothing and calls `on_backward` once,
/// when the gradients of all that are used have arrived and before any goes on. What made the
/// values runs after it; so do no gradients of leaves that were used behind it: they are there by
/// then. Without grad mode, or when no value requires a gradient, nothing happens.
void add_boundary(const std::vector<at::Tensor*>& values, std::function<void()> on_backward);

}  // namespace praetor
