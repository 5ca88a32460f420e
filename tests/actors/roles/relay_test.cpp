#include "actors/roles/relay.h"

#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <set>
#include <thread>

#include "core/base/error.h"
#include "tests/support/catch.h"

namespace praetor {

namespace {

using std::chrono::milliseconds;

/// Hands out one sample a lease, to whoever asks, and counts what it is asked.
class Above final : public WorkerService {
 public:
  Admission join(const MemberInfo& member) override {
    joined.push_back(member.name);
    return {.run_id = "run"};
  }
  void leave(const std::string& name) override { left.push_back(name); }
  Orders heartbeat(const Heartbeat& beat) override {
    return beat.name == "w0" ? Orders::kLeave : Orders::kGoOn;
  }
  std::vector<Orders> heartbeat_all(const std::vector<Heartbeat>& beats) override {
    ++calls;
    return WorkerService::heartbeat_all(beats);
  }
  std::optional<Lease> lease(const LeaseRequest& request) override {
    if (request.worker == "idle") return std::nullopt;
    Lease lease;
    lease.id = request.number + 1;
    return lease;
  }
  std::vector<std::optional<Lease>> lease_some(const std::vector<LeaseRequest>& requests,
                                               milliseconds wait) override {
    ++calls;
    if (hold) hold();
    longest = std::max(longest, wait);
    return WorkerService::lease_some(requests, wait);
  }
  void complete(Completion completion) override {
    if (completion.worker == "w3") throw RefusedError("lease of somebody else");
    const std::lock_guard lock(mutex);
    durable.insert(completion.lease);
  }
  void complete_all(std::vector<Completion> completions) override {
    ++calls;
    if (hold) hold();
    WorkerService::complete_all(std::move(completions));
  }
  std::optional<Publication> newer_weights(const NewerWeights& request) override {
    ++calls;
    if (hold) hold();
    Publication out;
    out.version = {.stage = 3, .step = 5};
    return request.step < 5 ? std::optional(out) : std::nullopt;
  }

  std::function<void()> hold;
  std::atomic<int> calls{0};
  std::mutex mutex;
  std::set<int64_t> durable;
  std::vector<std::string> joined, left;
  milliseconds longest{0};
};

constexpr int kWorkers = 16;

/// Runs `work` for each worker, all at once.
void all_at_once(const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kWorkers; ++i) threads.emplace_back([&, i] { work(i); });
  for (std::thread& thread : threads) thread.join();
}

/// The first call above lasts until the other workers have come, surely by then.
void hold_first(Above& above) {
  above.hold = [&above] {
    if (above.calls == 1) std::this_thread::sleep_for(milliseconds(300));
  };
}

std::string name(int i) {
  return str("w", i);
}

}  // namespace

TEST_CASE("calls of many workers go on as few", "[actors][cpu]") {
  Above above;
  hold_first(above);
  Relay relay(above, milliseconds(1));
  SECTION("leases: each its own") {
    std::array<int64_t, kWorkers> ids{};
    all_at_once([&](int i) {
      const auto lease =
          relay.lease({.worker = name(i), .max_items = 1, .number = i, .wait = milliseconds(5000)});
      ids[static_cast<size_t>(i)] = lease ? lease->id : 0;
    });
    for (int i = 0; i < kWorkers; ++i) CHECK(ids[static_cast<size_t>(i)] == i + 1);
    CHECK(above.calls <= 4);
  }
  SECTION("results: durable when they return, and one that is refused is so alone") {
    std::atomic<int> refused{0};
    all_at_once([&](int i) {
      try {
        relay.complete({.worker = name(i), .lease = i + 1});
        const std::lock_guard lock(above.mutex);
        if (!above.durable.contains(i + 1)) ++refused;
      } catch (const RefusedError&) {
        refused += i == 3 ? 100 : 1;
      }
    });
    CHECK(refused == 100);
    CHECK(above.durable.size() == kWorkers - 1);
  }
  SECTION("heartbeats: each hears its own orders") {
    std::array<Orders, kWorkers> orders{};
    all_at_once(
        [&](int i) { orders[static_cast<size_t>(i)] = relay.heartbeat({.name = name(i)}); });
    CHECK(orders[0] == Orders::kLeave);
    for (size_t i = 1; i < kWorkers; ++i) CHECK(orders[i] == Orders::kGoOn);
    CHECK(above.calls < kWorkers);
  }
  SECTION("newer weights: for those whose are older, of their stage") {
    std::atomic<int> told{0};
    all_at_once([&](int i) {
      const auto found = relay.newer_weights(
          {.stage = i == 7 ? 2U : 3U, .step = i == 5 ? 5 : 4, .wait = milliseconds(400)});
      if (found) told += i == 7 || i == 5 ? 100 : 1;
    });
    CHECK(told == kWorkers - 2);
  }
}

TEST_CASE("who finds no work waits no longer than it wanted, and others' work is not its",
          "[actors][cpu]") {
  Above above;
  Relay relay(above, milliseconds(1));
  const auto began = std::chrono::steady_clock::now();
  CHECK_FALSE(relay.lease({.worker = "idle", .max_items = 1, .wait = milliseconds(100)}));
  CHECK(std::chrono::steady_clock::now() - began >= milliseconds(100));
  CHECK(above.longest <= milliseconds(100));
  CHECK(relay.join({.name = "w1"}).run_id == "run");
  relay.leave("w1");
  CHECK((above.joined == above.left));
}

TEST_CASE("an error of a combined call is everybody's", "[actors][cpu]") {
  int calls = 0;
  Combiner<int> combiner([&](const std::vector<int*>& all) -> std::vector<bool> {
    ++calls;
    std::this_thread::sleep_for(milliseconds(50));
    if (calls > 1) throw TemporaryError("out of reach: ", all.size());
    for (int* one : all) *one = 7;
    return std::vector<bool>(all.size(), true);
  });
  std::atomic<int> failed{0}, answered{0};
  all_at_once([&](int) {
    int mine = 0;
    try {
      combiner.run(mine);
      answered += mine == 7 ? 1 : 0;
    } catch (const TemporaryError&) {
      ++failed;
    }
  });
  CHECK(answered >= 1);
  CHECK(failed + answered == kWorkers);
}

}  // namespace praetor
