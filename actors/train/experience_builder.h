#pragma once

#include "actors/controller/services.h"
#include "core/data/experience.h"

namespace praetor {

/// The ragged form in which a learner takes a batch; sequences in the batch's order.
Experience make_experience(const std::vector<ScoredSample>& samples);

}  // namespace praetor
