#pragma once

#include <string>

#include "core/collective/collective.h"

namespace praetor::testing {

/// Trains every case for two updates, at every stage of sharding, in copies and with split layers,
/// some untied in float64, in bfloat16 and under adapters, and returns reports and weights as text:
/// what backends are compared by.
std::string learner_transcript(Collective& ranks);

/// The same of cases that write a checkpoint together after two updates, open it in another layout
/// and go on for two.
/// @throws InternalError when what was loaded is not what was saved
std::string resume_transcript(Collective& ranks);

}  // namespace praetor::testing
