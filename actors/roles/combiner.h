#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace praetor {

/// Makes one call of many that are waiting: the thread that comes first makes it for all that have
/// come meanwhile, and so do its successors, one after another. Any thread.
template <typename Item>
class Combiner {
 public:
  /// Answers items, and says of each whether that was its answer; the others go into the next call.
  /// What it throws is thrown at all of them.
  using Serve = std::function<std::vector<bool>(const std::vector<Item*>&)>;

  /// @param gather  a call waits so long for others to join it
  explicit Combiner(Serve serve, std::chrono::milliseconds gather = std::chrono::milliseconds(0))
      : serve_(std::move(serve)), gather_(gather) {}

  /// Returns when `item` has been answered.
  void run(Item& item) {
    Place mine{.item = &item};
    std::unique_lock lock(mutex_);
    places_.push_back(&mine);
    for (;;) {
      changed_.wait(lock, [&] { return mine.done || !busy_; });
      if (mine.done) break;
      busy_ = true;
      lead(lock);
      busy_ = false;
      changed_.notify_all();
    }
    lock.unlock();
    if (mine.failure) std::rethrow_exception(mine.failure);
  }

 private:
  struct Place {
    Item* item = nullptr;
    bool done = false;
    std::exception_ptr failure;
  };

  void lead(std::unique_lock<std::mutex>& lock) {
    if (gather_.count() > 0) {
      lock.unlock();
      std::this_thread::sleep_for(gather_);
      lock.lock();
    }
    const std::vector<Place*> all = places_;
    std::vector<Item*> items;
    for (Place* one : all) items.push_back(one->item);
    lock.unlock();
    std::vector<bool> answered(all.size(), true);
    std::exception_ptr failure;
    try {
      answered = serve_(items);
    } catch (...) {  // a border: it is thrown at each of them
      failure = std::current_exception();
    }
    lock.lock();
    for (size_t i = 0; i < all.size(); ++i) {
      all[i]->failure = failure;
      all[i]->done = answered[i];
    }
    std::erase_if(places_, [](const Place* one) { return one->done; });
  }

  const Serve serve_;
  const std::chrono::milliseconds gather_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Place*> places_;
  bool busy_ = false;
};

}  // namespace praetor
