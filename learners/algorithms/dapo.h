#pragma once

#include "learners/algorithms/grpo.h"

namespace praetor {

/// GRPO for long chains of thought (Yu et al. 2025, arXiv:2503.14476): a higher ceiling, every
/// token alike, groups without contrast replaced by other prompts, length punished near its limit,
/// no KL.
GrpoConfig dapo_defaults();

}  // namespace praetor
