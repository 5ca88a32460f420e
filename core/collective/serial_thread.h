#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

namespace praetor {

/// Runs tasks one after another, in the order they are given, on a thread of its own that begins
/// with the first of them. Calls are made by one thread.
class SerialThread {
 public:
  SerialThread() = default;
  SerialThread(const SerialThread&) = delete;
  SerialThread& operator=(const SerialThread&) = delete;
  /// Runs what is left.
  ~SerialThread();

  /// What the task throws is in the future.
  std::shared_future<void> post(std::function<void()> task);
  /// Returns when all that was posted has run; what it threw does not come out here.
  void drain();
  /// Something that was posted has not run to its end.
  bool busy() const;

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::packaged_task<void()>> tasks_;
  bool ends_ = false;
  std::thread thread_;
  std::shared_future<void> last_;
};

}  // namespace praetor
