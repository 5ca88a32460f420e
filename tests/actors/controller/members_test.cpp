#include "actors/controller/members.h"

#include "tests/support/catch.h"

namespace praetor {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_CASE("a member is lost when it is silent or works without progress", "[actors][cpu]") {
  Members members({.lost_after = seconds(10), .hung_after = seconds(60)});
  const auto start = Members::Clock::now();
  const MemberInfo worker{.name = "rollout-0", .serves = {LeaseKind::kGenerate}, .incarnation = 5};
  CHECK(members.heartbeat({.name = "rollout-0", .incarnation = 5}, start) == Orders::kRegister);
  CHECK_FALSE(members.join(worker, start));
  CHECK_FALSE(members.join(worker, start));  // asked for again
  CHECK(members.serving(LeaseKind::kGenerate) == 1);
  CHECK(members.serving(LeaseKind::kScore) == 0);
  CHECK(members.lose_silent(start + seconds(9)).empty());
  CHECK(members.lose_silent(start + seconds(11)) == std::vector<std::string>{"rollout-0"});
  CHECK(members.lose_silent(start + seconds(12)).empty());  // said once
  CHECK(members.serving(LeaseKind::kGenerate) == 0);
  CHECK(members.all().at("rollout-0").why == "no sign of life for 11 s");

  // It was only slow: it is back.
  auto now = start + seconds(13);
  CHECK(members.heartbeat({.name = "rollout-0", .incarnation = 5, .busy = true}, now) ==
        Orders::kGoOn);
  CHECK(members.serving(LeaseKind::kGenerate) == 1);
  for (int i = 0; i < 12; ++i) {
    now += seconds(5);
    members.heartbeat({.name = "rollout-0", .incarnation = 5, .busy = true, .progress = 3}, now);
    CHECK(members.lose_silent(now).empty());
  }
  now += seconds(9);
  members.heartbeat({.name = "rollout-0", .incarnation = 5, .busy = true, .progress = 3}, now);
  CHECK(members.lose_silent(now) == std::vector<std::string>{"rollout-0"});
  CHECK(members.all().at("rollout-0").why == "at work without progress for 64 s");
}

TEST_CASE("a name has one process at a time", "[actors][cpu]") {
  Members members(Patience{});
  const auto now = Members::Clock::now();
  members.join({.name = "reward-0", .incarnation = 1}, now);
  CHECK(members.join({.name = "reward-0", .incarnation = 2}, now));  // replaces a living one
  CHECK(members.heartbeat({.name = "reward-0", .incarnation = 1}, now) == Orders::kLeave);
  CHECK_FALSE(members.lose("reward-0", 1, "late news of the one before"));
  CHECK(members.lose("reward-0", 2, "killed by SIGKILL"));
  CHECK_FALSE(members.lose("reward-0", 0, "again"));
  CHECK_FALSE(members.join({.name = "reward-0", .incarnation = 3}, now));  // of a lost one
  members.leave("reward-0");
  CHECK(members.all().empty());
  CHECK_FALSE(members.lose("reward-0", 0, "not there"));
}

}  // namespace praetor
