#include "actors/launch/exit_report.h"

#include <signal.h>

#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace fs = std::filesystem;
using testing::TempDir;

namespace {

void write(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

}  // namespace

TEST_CASE("what is not worth another try", "[actors][cpu]") {
  ExitReport report;
  for (const int status : {64, 65, 66, 77, 78}) {
    report.status = status;
    CHECK_FALSE(report.worth_retrying());
  }
  for (const int status : {-1, 0, 1, 3, 70, 74, 75, 127, 137, 143}) {
    report.status = status;
    CHECK(report.worth_retrying());
  }
  report = {};
  report.signal = SIGABRT;
  CHECK(report.worth_retrying());
}

TEST_CASE("an end in words", "[actors][cpu]") {
  ExitReport report;
  CHECK(report.how() == "exit status 0 (done)");
  report.status = 42;
  CHECK(report.how() == "exit status 42");
  report.status = 139;
  CHECK(report.how() == "exit status 139 (SIGSEGV)");
  report.status = 127;
  CHECK(report.how() == "exit status 127 (no such program)");
  report.status = 0;
  report.signal = SIGKILL;
  report.memory = ExitReport::Memory::kSeen;
  CHECK_THAT(report.how(), Catch::Contains("killed by SIGKILL; out of memory"));
  CHECK(signal_name(99) == "signal 99");

  report.command = "praetor worker";
  report.pid = 12;
  report.run_time = std::chrono::milliseconds(90'250);
  report.peak_memory_bytes = 3 << 20;
  report.log_file = "/x/log";
  report.log_tail = {"a", "b"};
  report.memory = ExitReport::Memory::kSuspected;
  CHECK(report.text() ==
        "killed by SIGKILL; nobody here sent that: out of memory?\n"
        "pid 12, ran 90.2 s, peak memory 3.0 MiB\n"
        "command: praetor worker\n"
        "the end of /x/log\n"
        "  | a\n"
        "  | b\n");
}

TEST_CASE("the kernel's count of memory kills is found in both kinds of cgroup", "[actors][cpu]") {
  const TempDir folder;
  const fs::path cgroups = folder / "cgroup";
  const fs::path self = folder / "self";
  CHECK_FALSE(oom_kill_file(cgroups, self));
  write(self, "12:cpu,cpuacct:/a\n7:memory:/jobs/one\n0::/\n");
  CHECK_FALSE(oom_kill_file(cgroups, self));
  const fs::path old = cgroups / "memory" / "jobs" / "one" / "memory.oom_control";
  write(old, "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
  REQUIRE(oom_kill_file(cgroups, self) == old);
  CHECK(oom_kill_count(old) == 3);

  write(self, "0::/system.slice/one.scope\n");
  const fs::path top = cgroups / "memory.events";
  write(top, "low 0\noom 1\noom_kill 5\n");
  CHECK(oom_kill_file(cgroups, self) == top);  // a path of another namespace
  const fs::path ours = cgroups / "system.slice" / "one.scope" / "memory.events";
  write(ours, "low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n");
  CHECK(oom_kill_file(cgroups, self) == ours);
  CHECK(oom_kill_count(ours) == 2);
  CHECK_FALSE(oom_kill_count(folder / "absent"));
  write(self, "nonsense\n:\n::\n");
  CHECK_FALSE(oom_kill_file(cgroups, self));
}

TEST_CASE("the tail of a log is short and printable", "[actors][cpu]") {
  const TempDir folder;
  const fs::path log = folder / "log";
  CHECK(log_tail(log, 0, 5).empty());
  std::ofstream(log) << "old\nbell\a\n" << std::string(1000, 'x') << "\nlast";
  const auto lines = log_tail(log, 4, 5);
  REQUIRE(lines.size() == 3);
  CHECK(lines[0].find('\a') == std::string::npos);
  CHECK(lines[1].size() < 300);
  CHECK(lines[2] == "last");
  CHECK(log_tail(log, 4, 1) == std::vector<std::string>{"last"});
  CHECK(log_tail(log, 100'000, 9).size() == 4);  // cut since
  {
    std::ofstream out(log);
    for (int i = 0; i < 20'000; ++i) out << "line " << i << '\n';
  }
  CHECK(log_tail(log, 0, 2) == std::vector<std::string>{"line 19998", "line 19999"});
  CHECK(log_tail(log, 0, 1'000'000).front().starts_with("line "));
}

}  // namespace praetor
