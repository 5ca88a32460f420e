#pragma once

#include <vector>

#include "actors/job/plan.h"
#include "learners/memory_plan.h"

namespace praetor {

/// Of the row of what a network under an adapter learns.
constexpr const char* kAdapterSuffix = "'s adapter";

/// Fills in what the networks of a stage take at the learner's precision, and with its optimizers,
/// in what people read and in what an update's memory is planned from.
/// @param shape  of the policy or the reward model; a critic of another shape is taken for as deep
/// and wide when it comes to what a factored state keeps
void count_precision(const StageConfig& stage,
                     const Algorithm& algorithm,
                     const ModelConfig& shape,
                     std::vector<StagePlan::Network>& networks,
                     std::vector<PlannedNetwork>& planned);

}  // namespace praetor
