#include "actors/roles/weight_watch.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "tests/support/catch.h"

namespace praetor {

namespace {

/// Weights of a step are there once they are published; questions wait for them.
class Published final : public WorkerService {
 public:
  Admission join(const MemberInfo&) override { return {}; }
  Orders heartbeat(const Heartbeat&) override { return Orders::kGoOn; }
  void leave(const std::string&) override {}
  std::optional<Lease> lease(const LeaseRequest&) override { return std::nullopt; }
  void complete(Completion) override {}
  std::optional<Publication> newer_weights(const NewerWeights& request) override {
    std::unique_lock lock(mutex_);
    ++questions_;
    changed_.notify_all();
    changed_.wait_for(lock, request.wait, [&] { return newest_ > request.step || ended_; });
    if (newest_ <= request.step) return std::nullopt;
    return Publication{.version = {.stage = request.stage, .step = newest_}};
  }
  void publish(int64_t step) {
    const std::lock_guard lock(mutex_);
    newest_ = step;
    changed_.notify_all();
  }
  void end_waits() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  bool wait_for_questions(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return questions_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t newest_ = 0;
  int questions_ = 0;
  bool ended_ = false;
};

/// Looks as an engine does, step after step.
std::optional<Publication> await(WeightWatch& watch) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (std::chrono::steady_clock::now() < end) {
    if (auto found = watch.take()) return found;
    std::this_thread::yield();
  }
  return std::nullopt;
}

}  // namespace

TEST_CASE("a worker hears of newer weights while it generates, each once", "[actors][cpu]") {
  Published service;
  WeightWatch watch(service);
  CHECK_FALSE(watch.take());
  watch.watch({.stage = 1, .step = 0});
  REQUIRE(service.wait_for_questions(1));
  CHECK_FALSE(watch.take());
  service.publish(3);
  const auto found = await(watch);
  REQUIRE(found);
  CHECK(found->version.step == 3);
  CHECK(found->version.stage == 1);
  // It goes on from there.
  REQUIRE(service.wait_for_questions(2));
  CHECK_FALSE(watch.take());
  service.publish(4);
  REQUIRE(await(watch));
  // A lease that began with them has nothing newer to hear of.
  watch.rest();
  watch.watch({.stage = 1, .step = 4});
  REQUIRE(service.wait_for_questions(4));
  CHECK_FALSE(watch.take());
  service.end_waits();
}

}  // namespace praetor
