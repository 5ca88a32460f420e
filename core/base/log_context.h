#pragma once

#include <cstdint>
#include <string>

namespace praetor::log {

/// Makes every line of this process say when it was written and by which role of a run, as in
/// "2026-01-02T10:00:00.123 rollout-0 step 12 info: ...". For processes whose stderr is a log file.
/// Any thread.
void set_role(const std::string& role);
/// The step that the lines from now on belong to; -1: none.
void set_step(int64_t step);

}  // namespace praetor::log
