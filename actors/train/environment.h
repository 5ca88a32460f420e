#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/collective/collective.h"

namespace praetor {

struct JobConfig;

/// What the bits of a run depend on besides the job file: program and library versions, instruction
/// set, threads, learner ranks and what they exchange over. Recorded with the run and in each
/// checkpoint.
std::map<std::string, std::string> environment_facts(const JobConfig& job, const Collective& ranks);

/// "threads: 2 then, 1 now" for each fact that differs, or stands on one side only.
std::vector<std::string> differences(const std::map<std::string, std::string>& then,
                                     const std::map<std::string, std::string>& now);

/// The processor as /proc/cpuinfo names it.
std::string processor_name();

}  // namespace praetor
