// The one source compiled with OpenMP, without which at::parallel_for is a plain loop.
#include "core/model/kernels/parallel.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

namespace praetor::ops::kernels {

int64_t threads_for(int64_t work) {
  // Waking the pool costs microseconds: a thread gets at least as much work as some tens of them.
  constexpr int64_t kWorth = int64_t{1} << 19;
  if (work < 2 * kWorth || at::in_parallel_region()) return 1;
  return std::min<int64_t>(at::get_num_threads(), work / kWorth);
}

void run_tasks(int64_t threads, int64_t tasks, const std::function<void(int64_t)>& task) {
  threads = std::min(threads, tasks);
  if (threads <= 1) {
    for (int64_t i = 0; i < tasks; ++i) task(i);
    return;
  }
  std::atomic<int64_t> next{0};
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < tasks; i = next++) task(i);
  });
}

void over_rows(int64_t rows, int64_t work, const std::function<void(int64_t, int64_t)>& part) {
  if (rows == 0) return;
  const int64_t threads = std::min(threads_for(rows * work), rows);
  run_tasks(
      threads, threads, [&](int64_t i) { part(rows * i / threads, rows * (i + 1) / threads); });
}

}  // namespace praetor::ops::kernels
