#pragma once

#include <vector>

#include "actors/job/plan.h"

namespace praetor {

/// Fills in what the networks of a stage take at the learner's precision, and with its optimizers.
/// @param shape  of the policy or the reward model; a critic of another shape is taken for as deep
/// and wide when it comes to what a factored state keeps
void count_precision(const StageConfig& stage,
                     const Algorithm& algorithm,
                     const ModelConfig& shape,
                     std::vector<StagePlan::Network>& networks);

}  // namespace praetor
