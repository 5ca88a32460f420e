#pragma once

#include "learners/algorithms/grpo.h"

namespace praetor {

/// GRPO without its two biases (Liu et al. 2025, arXiv:2503.20783): advantages are not divided by
/// the deviation of their group, and the loss divides by a constant length.
GrpoConfig dr_grpo_defaults();

}  // namespace praetor
