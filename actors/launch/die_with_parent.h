#pragma once

#include <sys/types.h>

#include <optional>

namespace praetor {

/// Makes the kernel send this process SIGKILL when its parent ends; for processes that something
/// other than ChildProcess starts (mpirun, srun). Call it first thing in main, on the main thread:
/// the bond is between the calling thread and the parent's thread that forked, and it is lost when
/// the caller's thread ends. A parent that is gone already ends the process at once: one that died
/// during the call, and, where `parent` is given, one that is not the parent any more.
void die_with_parent(std::optional<pid_t> parent = std::nullopt);

/// True for a process of mpirun or srun, which are no parents that die visibly by themselves.
bool started_by_launcher();

}  // namespace praetor
