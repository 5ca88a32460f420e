#pragma once

#include "learners/algorithms/grpo.h"

namespace praetor {

/// GRPO with one ratio a sequence, of the mean log-probability, and a narrow band (Zheng et al.
/// 2025, arXiv:2507.18071).
GrpoConfig gspo_defaults();

}  // namespace praetor
