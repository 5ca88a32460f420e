#include "actors/launch/allocation_watch.h"

#include <atomic>
#include <cmath>
#include <fstream>
#include <limits>

#include "actors/launch/slurm_allocation.h"
#include "core/base/error.h"
#include "tests/actors/launch/processes.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_CASE("the end of an allocation is told once, when no more is left than is needed",
          "[actors][cpu]") {
  std::atomic<int> asked{0}, told{0};
  std::atomic<int64_t> left_then{0};
  AllocationWatchOptions options;
  // 100, then 50, 25, 12, 6 s, as if half of the time were waited for.
  options.left = [&] { return seconds(100 >> asked++); };
  options.need = [] { return seconds(12); };
  options.near = [&](seconds left) {
    left_then = left.count();
    ++told;
  };
  options.shortest = options.longest = milliseconds(1);
  const AllocationWatch watch(options);
  CHECK(testing::eventually([&] { return told == 1; }));
  CHECK(left_then == 12);
  CHECK(asked == 4);
}

TEST_CASE("an allocation without an end, or an answer, is asked about again", "[actors][cpu]") {
  std::atomic<int> asked{0};
  AllocationWatchOptions options;
  options.left = [&]() -> std::optional<seconds> {
    if (++asked == 2) throw TemporaryError("squeue: no answer");
    return std::nullopt;
  };
  options.need = [] { return seconds(1); };
  options.near = [](seconds) { FAIL("it has no end"); };
  options.longest = milliseconds(1);
  const AllocationWatch watch(options);
  CHECK(testing::eventually([&] { return asked > 5; }));
}

TEST_CASE("a watch ends at once, in the middle of a long wait", "[actors][cpu]") {
  AllocationWatchOptions options;
  options.left = [] { return std::optional(seconds(100000)); };
  options.need = [] { return seconds(1); };
  const auto begin = std::chrono::steady_clock::now();
  { const AllocationWatch watch(options); }
  CHECK(std::chrono::steady_clock::now() - begin < seconds(5));
}

TEST_CASE("leaving takes the longest step and the longest checkpoint so far", "[actors][cpu]") {
  const testing::TempDir dir;
  CHECK(measured_leave_time(dir / "metrics.jsonl").count() == 0);
  std::ofstream(dir / "metrics.jsonl") << R"({"time/step": 2.5, "time/checkpoint": 1.25})"
                                       << "\n"
                                       << R"({"time/step": 4.0})"
                                       << "\n"
                                       << R"({"time/step": 9)";    // half a row
  CHECK(measured_leave_time(dir / "metrics.jsonl").count() == 6);  // 4 + 1.25, rounded up
}

TEST_CASE("an allocation is read from Slurm's variables", "[actors][cpu]") {
  std::map<std::string, std::string> environment;
  const auto variable = [&](const std::string& name) { return environment[name]; };
  CHECK_FALSE(SlurmAllocation::current(variable));
  environment = {
      {"SLURM_JOB_ID", "17"}, {"SLURM_JOB_NODELIST", "n[1-2]"}, {"SLURMD_NODENAME", "n1"}};
  const auto plain = SlurmAllocation::current(variable);
  REQUIRE(plain);
  CHECK(plain->job_id == "17");
  CHECK(plain->node == "n1");
  REQUIRE(plain->components.size() == 1);
  CHECK(plain->components[0].nodes == std::vector<std::string>{"n1", "n2"});
  environment = {{"SLURM_JOB_ID", "20"},
                 {"SLURM_HET_SIZE", "2"},
                 {"SLURM_JOB_ID_HET_GROUP_0", "20"},
                 {"SLURM_JOB_ID_HET_GROUP_1", "21"},
                 {"SLURM_JOB_NODELIST_HET_GROUP_0", "g1"},
                 {"SLURM_JOB_NODELIST_HET_GROUP_1", "c[1-2]"}};
  const auto two = SlurmAllocation::current(variable);
  REQUIRE(two);
  REQUIRE(two->components.size() == 2);
  CHECK(two->components[1].job_id == "21");
  CHECK(two->components[1].nodes == std::vector<std::string>{"c1", "c2"});
}

}  // namespace praetor
