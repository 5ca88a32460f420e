#include "core/base/lasting_thread.h"

#include <signal.h>
#include <unistd.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace praetor {

namespace {

class LastingThread {
 public:
  LastingThread() {
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread([this] { work(); }).detach();
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void run(const std::function<void()>& task) {
    const std::lock_guard turn(turn_);
    std::unique_lock lock(mutex_);
    task_ = &task;
    failure_ = nullptr;
    changed_.notify_all();
    changed_.wait(lock, [this] { return task_ == nullptr; });
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  [[noreturn]] void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return task_ != nullptr; });
      try {
        (*task_)();
      } catch (...) {
        failure_ = std::current_exception();
      }
      task_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex turn_;
  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void()>* task_ = nullptr;
  std::exception_ptr failure_;
};

}  // namespace

void on_lasting_thread(const std::function<void()>& task) {
  static std::mutex mutex;
  static LastingThread* thread = nullptr;
  static pid_t owner = 0;
  LastingThread* ours = nullptr;
  {
    const std::lock_guard lock(mutex);
    // A forked copy of this process has the object but not its thread. Never deleted: the thread
    // uses it to the end.
    if (thread == nullptr || owner != ::getpid()) {
      thread = new LastingThread;
      owner = ::getpid();
    }
    ours = thread;
  }
  ours->run(task);
}

}  // namespace praetor
