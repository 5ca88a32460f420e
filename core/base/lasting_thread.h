#pragma once

#include <functional>

namespace praetor {

/// Runs `task` on a thread that ends with the process, waits for it, and throws on what it throws.
/// Children that are forked there keep their PR_SET_PDEATHSIG bond for the life of the process,
/// whichever thread asked for them. All signals are blocked on that thread. One task at a time;
/// any thread.
void on_lasting_thread(const std::function<void()>& task);

}  // namespace praetor
