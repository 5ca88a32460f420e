#pragma once

#include <cstdint>
#include <functional>

namespace praetor::ops::kernels {

/// Threads worth using for about `work` fused multiply-adds (or as costly): 1 inside a parallel
/// region or for little work, else up to LibTorch's thread count.
int64_t threads_for(int64_t work);

/// Calls task(0) .. task(tasks - 1), each once, on up to `threads` threads of LibTorch's pool; a
/// thread takes the next task when it is free. An exception of a task ends the call.
void run_tasks(int64_t threads, int64_t tasks, const std::function<void(int64_t)>& task);

/// Calls part(begin, end) over pieces of 0..rows, each row costing about `work` multiply-adds.
void over_rows(int64_t rows, int64_t work, const std::function<void(int64_t, int64_t)>& part);

}  // namespace praetor::ops::kernels
