#include "actors/controller/broadcast_membership.h"

#include <string>
#include <vector>

#include "core/base/error.h"
#include "tests/support/catch.h"

namespace praetor {

namespace {

using Names = std::vector<std::string>;
const OpenBroadcast kFirst{.publisher = "learner-0"};

/// A run of broadcasts, as its publisher and its workers go through it.
struct Run {
  explicit Run(int64_t epoch = 0) : all(epoch) {}
  void ask(const std::string& worker) { all.present(worker, seen, BroadcastOutcome::kNone, ""); }
  void answer(const std::string& worker, const std::string& failure = "") {
    all.present(worker,
                seen,
                failure.empty() ? BroadcastOutcome::kReceived : BroadcastOutcome::kFailed,
                failure);
  }
  OpenedBroadcast open() {
    const OpenedBroadcast out = all.open({.publisher = "learner-0", .held = held});
    seen = out.number;
    return out;
  }
  /// To its end; every member of `silent` says nothing afterwards.
  OpenedBroadcast broadcast(const Names& silent = {}, const std::string& failure = "") {
    const OpenedBroadcast out = open();
    if (out.number.epoch == 0) return out;
    all.start(out.number);
    held = failure.empty() ? out.number.epoch : 0;
    all.close(out.number, failure);
    for (size_t i = 1; i < out.members.size(); ++i) {
      if (std::find(silent.begin(), silent.end(), out.members[i]) == silent.end())
        answer(out.members[i]);
    }
    return out;
  }
  BroadcastMembership all;
  BroadcastNumber seen;
  int64_t held = 0;
};

}  // namespace

TEST_CASE("a group stays as long as its members do", "[actors][cpu]") {
  Run run;
  run.ask("rollout-1");
  run.ask("rollout-0");
  OpenedBroadcast first = run.broadcast();
  CHECK(first.number == BroadcastNumber{1, 1});
  CHECK(first.members == Names{"learner-0", "rollout-0", "rollout-1"});
  CHECK(first.join);
  CHECK(run.all.rank_of("rollout-1") == 2);
  CHECK(run.all.rank_of("learner-0") == 0);
  run.ask("rollout-0");  // again and again
  const OpenedBroadcast second = run.broadcast();
  CHECK(second.number == BroadcastNumber{1, 2});
  CHECK_FALSE(second.join);
  CHECK(run.all.over().empty());
}

TEST_CASE("nobody there: nothing is broadcast, and no epoch is used up", "[actors][cpu]") {
  Run run;
  CHECK(run.broadcast().number == BroadcastNumber{});
  CHECK(run.broadcast().number == BroadcastNumber{});
  run.ask("rollout-0");
  CHECK(run.broadcast().number == BroadcastNumber{1, 1});
  run.all.gone("rollout-0", "signal 9");
  const OpenedBroadcast none = run.broadcast();
  CHECK(none.number == BroadcastNumber{});
  CHECK(none.dropped == Names{"rollout-0: signal 9"});
}

TEST_CASE("who comes late is in the next epoch, not in the one that is on", "[actors][cpu]") {
  Run run;
  run.ask("rollout-0");
  run.broadcast();
  const OpenedBroadcast on = run.open();
  run.ask("rollout-1");
  run.all.start(on.number);
  CHECK_FALSE(run.all.called("rollout-1"));
  run.all.close(on.number, "");
  run.answer("rollout-0");
  const OpenedBroadcast next = run.broadcast();
  CHECK(next.number == BroadcastNumber{2, 1});
  CHECK(next.members == Names{"learner-0", "rollout-0", "rollout-1"});
  CHECK(next.join);
  CHECK(next.dropped.empty());

  const OpenedBroadcast running = run.open();
  run.all.start(running.number);
  run.ask("rollout-2");
  CHECK_FALSE(run.all.called("rollout-2"));
  CHECK(run.all.called("rollout-0"));
  CHECK(run.all.lost().empty());  // nothing that would end it
}

TEST_CASE("who is lost, leaves or fails ends the epoch, and the others are told why",
          "[actors][cpu]") {
  Run run;
  run.ask("rollout-0");
  run.ask("rollout-1");
  run.broadcast();
  SECTION("lost between two") {
    run.all.gone("rollout-1", "no sign of life for 15 s");
    const OpenedBroadcast next = run.broadcast();
    CHECK(next.number == BroadcastNumber{2, 1});
    CHECK(next.members == Names{"learner-0", "rollout-0"});
    CHECK(next.dropped == Names{"rollout-1: no sign of life for 15 s"});
    run.ask("rollout-1");
    CHECK(run.broadcast().number == BroadcastNumber{3, 1});
  }
  SECTION("lost before it has begun") {
    const OpenedBroadcast on = run.open();
    run.all.gone("rollout-1", "it left");
    CHECK_THROWS_WITH(run.all.start(on.number),
                      "broadcast 2 of epoch 1 cannot begin: rollout-1: it left");
    CHECK(run.broadcast().number == BroadcastNumber{2, 1});
  }
  SECTION("lost in the middle of one") {
    const OpenedBroadcast on = run.open();
    run.all.start(on.number);
    run.all.gone("reward-0", "signal 9");
    CHECK(run.all.lost().empty());
    run.all.gone("rollout-0", "signal 9");
    CHECK(run.all.lost() == "rollout-0: signal 9");
    run.all.close(on.number, "given up");
    run.answer("rollout-1", "timed out");
    run.held = 0;
    const OpenedBroadcast next = run.broadcast();
    CHECK(next.number == BroadcastNumber{2, 1});
    CHECK(next.members == Names{"learner-0", "rollout-1"});
    CHECK(next.dropped == Names{"rollout-0: signal 9"});
    CHECK(run.all.lost().empty());
  }
  SECTION("one received damage: it is a member again, of a new epoch") {
    const OpenedBroadcast on = run.open();
    run.all.start(on.number);
    run.all.close(on.number, "");
    run.answer("rollout-0", "its bytes have SHA-256");
    run.answer("rollout-1");
    CHECK(run.all.over() == "rollout-0: its bytes have SHA-256");
    const OpenedBroadcast next = run.broadcast();
    CHECK(next.number == BroadcastNumber{2, 1});
    CHECK(next.members == Names{"learner-0", "rollout-0", "rollout-1"});
  }
  SECTION("one says nothing: it is out until it asks again") {
    run.broadcast({"rollout-1"});
    CHECK(run.all.owing() == std::set<std::string>{"rollout-1"});
    const OpenedBroadcast next = run.broadcast();
    CHECK(next.number == BroadcastNumber{2, 1});
    CHECK(next.members == Names{"learner-0", "rollout-0"});
    CHECK(next.dropped == Names{"rollout-1: it has not said how the last broadcast went"});
    run.ask("rollout-1");
    CHECK(run.broadcast().members == Names{"learner-0", "rollout-0", "rollout-1"});
    CHECK(run.all.now() == BroadcastNumber{3, 1});
  }
  SECTION("an answer of an older broadcast is none") {
    const BroadcastNumber old = run.seen;
    run.broadcast({"rollout-1"});
    run.all.present("rollout-1", old, BroadcastOutcome::kReceived, "");
    CHECK(run.all.owing().contains("rollout-1"));
  }
}

TEST_CASE("a broadcast that failed before a member heard of it does not cost the member its place",
          "[actors][cpu]") {
  Run run;
  run.ask("rollout-0");
  run.ask("rollout-1");
  const OpenedBroadcast on = run.open();
  run.all.start(on.number);
  run.all.close(on.number, "no GPU");
  CHECK_FALSE(run.all.called("rollout-0"));
  for (const char* worker : {"rollout-0", "rollout-1"})
    run.all.present(worker, {}, BroadcastOutcome::kNone, "");
  const OpenedBroadcast next = run.broadcast();
  CHECK(next.number == BroadcastNumber{2, 1});
  CHECK(next.members == Names{"learner-0", "rollout-0", "rollout-1"});
}

TEST_CASE("another publisher, or one that has lost its group, begins an epoch", "[actors][cpu]") {
  Run run(41);  // a controller that was started again
  run.ask("rollout-0");
  CHECK(run.broadcast().number == BroadcastNumber{42, 1});
  run.held = 0;
  CHECK(run.broadcast().number == BroadcastNumber{43, 1});
  run.held = 57;  // it knows of epochs that this controller does not
  CHECK(run.broadcast().number == BroadcastNumber{58, 1});
  const OpenedBroadcast other = run.all.open({.publisher = "learner-9"});
  CHECK(other.number == BroadcastNumber{59, 1});
  CHECK(other.members == Names{"learner-9", "rollout-0"});

  // Killed in the middle of one: its successor does not find it going on.
  run.all.start(other.number);
  run.seen = other.number;
  run.answer("rollout-0", "rank 0 has gone");
  const OpenedBroadcast next = run.all.open({.publisher = "learner-9"});
  CHECK(next.number == BroadcastNumber{60, 1});
  // Nobody has said how that one ended.
  run.all.start(next.number);
  run.seen = next.number;
  run.answer("rollout-0");
  CHECK(run.all.open({.publisher = "learner-9", .held = 60}).number == BroadcastNumber{61, 1});
}

TEST_CASE("repeated calls about a broadcast change nothing", "[actors][cpu]") {
  Run run;
  run.ask("rollout-0");
  const OpenedBroadcast first = run.open();
  const OpenedBroadcast again = run.open();
  CHECK(again.number == first.number);
  CHECK(again.join);
  run.all.start(first.number);
  run.all.start(first.number);
  run.answer("rollout-0");
  CHECK_FALSE(run.all.called("rollout-0"));
  run.all.close(first.number, "");
  run.all.close(first.number, "late");
  CHECK(run.all.over().empty());
  CHECK_THROWS_WITH(run.all.start(first.number), "broadcast 1 of epoch 1 is not open");
  CHECK_THROWS_AS(run.all.start({7, 7}), InvalidArgument);
}

}  // namespace praetor
