#include "tests/support/rank_fault.h"

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "core/base/str.h"
#include "core/collective/exchange_collective.h"
#include "tests/support/ranks.h"

namespace praetor::testing {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMostPhases = 16;
constexpr size_t kAtATime = 12;
/// Nobody waits for the others' end longer than this, so that a test fails rather than hangs.
constexpr std::chrono::seconds kPatience{60};

/// A rank's exchanges so far, some of which its other threads make.
struct Count {
  std::atomic<size_t> phase{0};
  std::array<std::atomic<int64_t>, kMostPhases> made{};
};

class Blow {
 public:
  Blow(Strike what, int32_t world_size, std::chrono::milliseconds deadline)
      : what_(what),
        others_(world_size - 1),
        deadline_(deadline),
        counts_(static_cast<size_t>(world_size)) {}

  void enter(int32_t rank, size_t phase) { counts_[static_cast<size_t>(rank)].phase = phase; }

  void exchange(int32_t rank, const CollectiveCall& call) {
    Count& count = counts_[static_cast<size_t>(rank)];
    const size_t phase = count.phase;
    const int64_t number = count.made.at(phase)++;
    if (rank != what_.rank || phase != what_.phase || number != what_.exchange) return;
    if (what_.fault == Fault::kNone) return;
    std::unique_lock lock(mutex_);
    call_ = call.text();
    start_ = Clock::now();
    switch (what_.fault) {
      case Fault::kStop:
        changed_.wait_for(lock, kPatience, [&] { return others_ == 0; });
        return;
      case Fault::kThrow:
        throw std::runtime_error(kFailure);
      case Fault::kSlow:
        std::this_thread::sleep_for(deadline_ / 3);
        return;
      case Fault::kNone:
        return;
    }
  }

  /// @return seconds since the strike
  double end(bool other) {
    const std::lock_guard lock(mutex_);
    if (other) --others_;
    changed_.notify_all();
    return call_.empty() ? 0 : std::chrono::duration<double>(Clock::now() - start_).count();
  }
  std::string call() const { return call_; }
  std::vector<std::vector<int64_t>> made() const {
    std::vector<std::vector<int64_t>> out;
    for (const Count& one : counts_) out.emplace_back(one.made.begin(), one.made.end());
    return out;
  }

 private:
  const Strike what_;
  int32_t others_;  ///< that have not ended
  const std::chrono::milliseconds deadline_;
  std::vector<Count> counts_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string call_;
  Clock::time_point start_;
};

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

std::string Strike::text() const {
  constexpr const char* kNames[] = {"nothing happens to", "stop", "fail", "slow"};
  return str(kNames[static_cast<size_t>(fault)],
             " rank ",
             rank,
             " at exchange ",
             exchange,
             " of phase ",
             phase);
}

Struck strike(int32_t world_size,
              std::chrono::milliseconds deadline,
              const Strike& what,
              const PhasedWork& work) {
  const auto group = make_thread_group(world_size, {.deadline = deadline});
  Blow blow(what, world_size, deadline);
  Struck out;
  out.seconds.resize(group.size());
  out.errors = run_ranks(group, [&](Collective& ranks) {
    const bool struck = ranks.rank() == what.rank;
    const auto ends = [&] { out.seconds[static_cast<size_t>(ranks.rank())] = blow.end(!struck); };
    dynamic_cast<ExchangeCollective&>(ranks).state()->probe = [&](const CollectiveCall& call) {
      blow.exchange(ranks.rank(), call);
    };
    try {
      work(ranks, [&](size_t phase) { blow.enter(ranks.rank(), phase); });
    } catch (const std::exception& error) {
      ranks.abort(error.what());
      ends();
      throw;
    }
    ends();
  });
  out.call = blow.call();
  out.exchanges = blow.made();
  return out;
}

std::string complaint(const Struck& outcome,
                      const Strike& what,
                      std::chrono::milliseconds deadline) {
  if (what.fault != Fault::kNone && outcome.call.empty()) return "nothing was struck";
  const double limit = std::chrono::duration<double>(deadline).count();
  bool told = false;
  for (size_t r = 0; r < outcome.errors.size(); ++r) {
    const std::string& error = outcome.errors[r];
    const bool struck = r == static_cast<size_t>(what.rank);
    const auto complain = [&](const std::string& why) {
      return str("rank ", r, " ", why, " (struck in ", outcome.call, "): ", error);
    };
    if (what.fault == Fault::kNone || what.fault == Fault::kSlow) {
      if (!error.empty()) return complain("failed");
      continue;
    }
    // One that goes on once it may is told that the others are gone, but perhaps not in its last
    // exchange, for which all had sent what it wanted.
    if (struck && what.fault == Fault::kStop) continue;
    if (error.empty()) return complain("came to its end");
    told = told || holds(error, outcome.call);
    if (what.fault == Fault::kThrow) {
      if (!holds(error, kFailure)) return complain("does not say what failed");
      if (struck) continue;
      if (!holds(error, str("rank ", what.rank, " gave up"))) return complain("names nobody");
      if (outcome.seconds[r] >= limit) return complain("waited for its deadline");
      continue;
    }
    if (!holds(error, str("rank ", what.rank, " did not come"))) return complain("names another");
    if (outcome.seconds[r] > 2 * limit)
      return complain(str("took ", outcome.seconds[r], " s to end"));
  }
  if (what.fault != Fault::kStop || told) return "";
  return str("nobody names ", outcome.call, ": ", outcome.errors.back());
}

std::vector<Strike> places(const std::vector<std::vector<int64_t>>& exchanges, size_t thorough) {
  std::vector<Strike> out;
  size_t turn = 0;
  for (size_t phase = 0; phase < kMostPhases; ++phase) {
    for (size_t part = 0; part < 5; ++part) {
      if (phase != thorough && part != 0 && part != 2) continue;
      size_t rank = turn % exchanges.size();
      if (exchanges[rank][phase] == 0) rank = 0;  // of copies the first alone publishes
      const int64_t n = exchanges[rank][phase];
      const int64_t at = static_cast<int64_t>(part) * (n - 1) / 4;
      const Strike place{.rank = static_cast<int32_t>(rank), .phase = phase, .exchange = at};
      if (n == 0 || (part > 0 && n == 1)) continue;
      out.push_back(place);
      ++turn;
    }
  }
  return out;
}

void side_by_side(size_t count, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next = 0;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < std::min(count, kAtATime); ++t) {
    threads.emplace_back([&] {
      for (size_t i = next++; i < count; i = next++) work(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace praetor::testing
