#include "actors/controller/work_queue.h"

#include "tests/support/catch.h"

namespace praetor {

namespace {

constexpr auto kGenerate = LeaseKind::kGenerate;

WorkQueue queue_of(int64_t prompts, int32_t samples) {
  WorkQueue queue;
  for (int64_t ordinal = prompts - 1; ordinal >= 0; --ordinal) {
    for (int32_t s = 0; s < samples; ++s) queue.want(kGenerate, {ordinal, s});
  }
  return queue;
}

void hold(WorkQueue& queue, int64_t lease, const std::string& worker, int64_t most) {
  queue.hold(lease, {.worker = worker, .kind = kGenerate, .items = queue.take(kGenerate, most)});
}

}  // namespace

TEST_CASE("work is handed out in sample order, whatever order it was wanted in", "[actors][cpu]") {
  WorkQueue queue = queue_of(3, 2);
  queue.want(kGenerate, {1, 0});  // again: once is enough
  CHECK(queue.waiting(kGenerate) == 6);
  CHECK((queue.take(kGenerate, 3) == std::vector<SampleId>{{0, 0}, {0, 1}, {1, 0}}));
  queue.forget(kGenerate, {1, 1});
  queue.forget(kGenerate, {7, 0});
  CHECK((queue.take(kGenerate, 9) == std::vector<SampleId>{{2, 0}, {2, 1}}));
  CHECK(queue.take(kGenerate, 9).empty());
}

TEST_CASE("a lease ends with its last item, and what is left of one given back waits again",
          "[actors][cpu]") {
  WorkQueue queue = queue_of(2, 2);
  hold(queue, 7, "a", 4);
  CHECK(queue.held(kGenerate) == 4);
  CHECK_FALSE(queue.finish(7, {{0, 0}, {1, 1}, {9, 9}}));
  CHECK(queue.of_worker("a") == std::vector<int64_t>{7});
  queue.give_back(7, false);
  CHECK(queue.idle());
  CHECK((queue.take(kGenerate, 9) == std::vector<SampleId>{{0, 1}, {1, 0}}));
  CHECK(queue.find(7) == nullptr);
  CHECK_FALSE(queue.finish(7, {{0, 1}}));
  queue.give_back(7, true);  // unknown by now
  CHECK(queue.take_condemned().empty());
}

TEST_CASE("after a death its prompts are handed out one by one, and deaths alone count",
          "[actors][cpu]") {
  WorkQueue queue = queue_of(3, 2);
  // Deaths among neighbours count once, however many.
  for (int64_t lease = 1; lease <= 5; ++lease) {
    queue.hold(lease, {.worker = "a", .kind = kGenerate, .items = {{0, 0}, {1, 0}}});
    queue.give_back(lease, true);
  }
  CHECK(queue.take_condemned().empty());
  CHECK(queue.take(kGenerate, 9).size() == 2);  // prompt 0 alone
  CHECK(queue.take(kGenerate, 9).size() == 2);  // prompt 1 alone
  CHECK(queue.take(kGenerate, 9).size() == 2);  // prompt 2 was never suspected
  for (int64_t lease = 10; lease < 12; ++lease) {
    CHECK(queue.take_condemned().empty());
    queue.hold(lease, {.worker = "b", .kind = kGenerate, .items = {{1, 0}, {1, 1}}});
    queue.give_back(lease, true);
  }
  CHECK(queue.take_condemned() == std::vector<int64_t>{1});
  CHECK(queue.waiting(kGenerate) == 0);
}

TEST_CASE("work of prompts that are over is forgotten, and leases of nothing else end",
          "[actors][cpu]") {
  WorkQueue queue = queue_of(3, 2);
  hold(queue, 1, "a", 2);  // prompt 0
  hold(queue, 2, "b", 1);  // half of prompt 1
  CHECK(queue.forget_before(1) == std::vector<int64_t>{1});
  CHECK_FALSE(queue.find(1));
  CHECK(queue.of_worker("a").empty());
  CHECK(queue.find(2));
  CHECK(queue.forget_before(2) == std::vector<int64_t>{2});
  CHECK((queue.take(kGenerate, 9) == std::vector<SampleId>{{2, 0}, {2, 1}}));
  CHECK(queue.idle());
}

}  // namespace praetor
