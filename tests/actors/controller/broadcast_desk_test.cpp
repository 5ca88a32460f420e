#include "actors/controller/broadcast_desk.h"

#include <chrono>
#include <future>
#include <string>
#include <vector>

#include "tests/support/catch.h"

namespace praetor {

using std::chrono::milliseconds;

namespace {

const OpenBroadcast kAsk{.publisher = "learner-0"};

BroadcastCall call_of(const OpenedBroadcast& opened) {
  return {.number = opened.number,
          .id = "id",
          .bucket_bytes = 4096,
          .files = {{.version = {.step = 3, .digest = "d"}, .bytes = 10}}};
}

auto ask(BroadcastDesk& desk,
         const std::string& worker,
         const BroadcastNumber& seen = {},
         BroadcastOutcome outcome = BroadcastOutcome::kNone,
         milliseconds wait = milliseconds(20'000)) {
  return std::async(std::launch::async, [&desk, worker, seen, outcome, wait] {
    return desk.await_broadcast(
        {.worker = worker, .seen = seen, .outcome = outcome, .why = "why", .wait = wait});
  });
}

/// Until so many workers wait.
void await_waiting(BroadcastDesk& desk, size_t count) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (desk.status().waiting.size() < count && std::chrono::steady_clock::now() < end)
    std::this_thread::yield();
}

}  // namespace

TEST_CASE("workers that wait are called to a broadcast, each by its rank", "[actors][cpu]") {
  std::vector<int64_t> kept;
  BroadcastDesk desk(6, [&](int64_t epoch) { kept.push_back(epoch); });
  auto one = ask(desk, "rollout-1"), two = ask(desk, "rollout-0");
  await_waiting(desk, 2);
  const OpenedBroadcast opened = desk.open_broadcast(kAsk);
  CHECK(kept == std::vector<int64_t>{7});
  desk.start_broadcast(call_of(opened));
  const auto first = one.get(), second = two.get();
  REQUIRE(first);
  REQUIRE(second);
  CHECK(first->rank == 2);
  CHECK(second->rank == 1);
  CHECK(first->id == "id");
  CHECK(first->members == std::vector<std::string>{"learner-0", "rollout-0", "rollout-1"});
  CHECK(first->files.at(0).version.digest == "d");
  // A repeated question has the same answer.
  CHECK(ask(desk, "rollout-1").get()->number == opened.number);
  const BroadcastStatus status = desk.status();
  CHECK(status.epoch == 7);
  CHECK(status.number == 1);
  CHECK(status.change.empty());
}

TEST_CASE("the publisher hears at once of a member that is lost in the middle", "[actors][cpu]") {
  BroadcastDesk desk;
  auto waits = ask(desk, "rollout-0");
  await_waiting(desk, 1);
  const OpenedBroadcast opened = desk.open_broadcast(kAsk);
  desk.start_broadcast(call_of(opened));
  CHECK(waits.get());
  CHECK_FALSE(desk.watch_broadcast(opened.number, milliseconds(1)));
  auto watch = std::async(std::launch::async, [&] {
    return desk.watch_broadcast(opened.number, milliseconds(20'000));
  });
  desk.gone("rollout-0", "signal 9");
  CHECK(watch.get() == "rollout-0: signal 9");
  desk.close_broadcast(opened.number, "given up");
  CHECK(desk.watch_broadcast(opened.number, milliseconds(20'000)) ==
        "the controller does not know of it any more");
  CHECK(desk.status().change == "rollout-0: signal 9");
}

TEST_CASE("a word that is late is waited for before the next broadcast, not for ever",
          "[actors][cpu]") {
  BroadcastDesk desk;
  auto waits = ask(desk, "rollout-0");
  await_waiting(desk, 1);
  const OpenedBroadcast first = desk.open_broadcast(kAsk);
  desk.start_broadcast(call_of(first));
  CHECK(waits.get());
  desk.close_broadcast(first.number, "");
  auto next = std::async(std::launch::async, [&] {
    return desk.open_broadcast({.publisher = "learner-0", .held = first.number.epoch});
  });
  auto answer = ask(desk, "rollout-0", first.number, BroadcastOutcome::kReceived);
  const OpenedBroadcast second = next.get();
  CHECK(second.number == BroadcastNumber{1, 2});
  desk.start_broadcast(call_of(second));
  CHECK(answer.get()->number == second.number);
  desk.close_broadcast(second.number, "");
  const OpenedBroadcast third =
      desk.open_broadcast({.publisher = "learner-0", .held = first.number.epoch});
  CHECK(third.number.epoch == 0);  // nobody is left
  CHECK(third.dropped.size() == 1);
}

TEST_CASE("a broadcast that failed before a worker heard of it has it ask again", "[actors][cpu]") {
  BroadcastDesk desk;
  CHECK_FALSE(desk.await_broadcast({.worker = "rollout-0"}));  // on its way between two questions
  const OpenedBroadcast opened = desk.open_broadcast(kAsk);
  desk.start_broadcast(call_of(opened));
  desk.close_broadcast(opened.number, "no GPU");
  CHECK_FALSE(desk.await_broadcast({.worker = "rollout-0"}));
  CHECK(desk.open_broadcast(kAsk).number == BroadcastNumber{2, 1});
}

TEST_CASE("at the end of the run nobody waits for broadcasts", "[actors][cpu]") {
  BroadcastDesk desk;
  auto waits = ask(desk, "rollout-0");
  await_waiting(desk, 1);
  desk.end();
  CHECK_FALSE(waits.get());
  CHECK(desk.watch_broadcast({}, milliseconds(20'000)) == "the run is over");
}

}  // namespace praetor
