#pragma once

#include "actors/job/job_config.h"

namespace praetor {

/// Throws when a stage of the job wants to generate on a GPU and this process has none: before
/// anything was computed. @throws MissingInput naming stage and key, and what is missing
void require_engine_devices(const JobConfig& job);

}  // namespace praetor
