#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

namespace praetor {

struct AllocationWatchOptions {
  /// Time until the allocation ends; nothing: without end, or not known at the moment.
  std::function<std::optional<std::chrono::seconds>()> left;
  /// Time that the run needs to leave in order.
  std::function<std::chrono::seconds()> need;
  /// Called once, on the watch's thread, when no more is left than is needed.
  std::function<void(std::chrono::seconds left)> near;
  std::chrono::milliseconds shortest{1'000};   ///< between two questions
  std::chrono::milliseconds longest{600'000};  ///< the limit may be changed meanwhile
};

/// Waits, on a thread of its own, until an allocation comes to its end. It asks again after half of
/// the time that remains, so rarely while there is much. The destructor ends the wait.
class AllocationWatch {
 public:
  explicit AllocationWatch(AllocationWatchOptions options);
  ~AllocationWatch();
  AllocationWatch(const AllocationWatch&) = delete;
  AllocationWatch& operator=(const AllocationWatch&) = delete;

 private:
  void watch();

  const AllocationWatchOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  std::thread thread_;  // last: uses the rest
};

/// What leaving in order took so far, by the newest rows of a run's metrics.jsonl: the longest
/// step, at whose end the run notices the request, and the longest checkpoint. Zero for a run
/// without any.
std::chrono::seconds measured_leave_time(const std::filesystem::path& metrics_file);

}  // namespace praetor
