#include "core/collective/serial_thread.h"

#include <chrono>
#include <utility>

namespace praetor {

SerialThread::~SerialThread() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::shared_future<void> SerialThread::post(std::function<void()> task) {
  if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
  std::packaged_task<void()> packaged(std::move(task));
  last_ = packaged.get_future().share();
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(packaged));
  }
  changed_.notify_all();
  return last_;
}

void SerialThread::drain() {
  if (last_.valid()) last_.wait();
}

bool SerialThread::busy() const {
  return last_.valid() && last_.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
}

void SerialThread::loop() {
  while (true) {
    std::packaged_task<void()> task;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return ends_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace praetor
