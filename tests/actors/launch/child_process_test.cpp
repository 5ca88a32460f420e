#include "actors/launch/child_process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <thread>

#include "core/base/error.h"
#include "tests/actors/launch/processes.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using testing::content;
using testing::dead;
using testing::eventually;
using testing::kLong;
using testing::shell;
using testing::TempDir;

namespace {

ExitReport run(ChildCommand command) {
  ChildProcess child(std::move(command));
  const ExitReport* report = child.wait(kLong);
  REQUIRE(report);
  return *report;
}

/// The number that a script wrote as the only line of a file.
pid_t pid_in(const fs::path& file) {
  REQUIRE(eventually([&] { return content(file).find('\n') != std::string::npos; }));
  return static_cast<pid_t>(std::stol(content(file)));
}

}  // namespace

TEST_CASE("exit statuses and signals are told apart", "[actors][cpu]") {
  CHECK(run(shell("exit 0")).success());
  const ExitReport bad = run(shell("exit 65"));
  CHECK(bad.status == 65);
  CHECK(bad.signal == 0);
  CHECK_FALSE(bad.success());
  CHECK(bad.how() == "exit status 65 (bad data, model or checkpoint)");
  const ExitReport killed = run(shell("kill -TERM $$"));
  CHECK(killed.signal == SIGTERM);
  CHECK(killed.exit_status() == 143);
  CHECK(killed.how() == "killed by SIGTERM");
  CHECK(run(shell("kill -KILL $$")).memory == ExitReport::Memory::kSuspected);
  CHECK(run(shell("exit 137")).memory == ExitReport::Memory::kSuspected);
}

TEST_CASE("a program that cannot be started is an error at once", "[actors][cpu]") {
  const TempDir folder;
  std::ofstream(folder / "text") << "no program";
  ChildCommand command;
  CHECK_THROWS_AS(ChildProcess(command), InvalidArgument);
  command.argv = {"praetor-no-such-program", "x"};
  CHECK_THROWS_WITH(ChildProcess(command), Catch::Contains("no such program in PATH"));
  command.argv = {(folder / "absent").string()};
  CHECK_THROWS_AS(ChildProcess(command), MissingInput);
  command.argv = {(folder / "text").string()};
  CHECK_THROWS_WITH(ChildProcess(command), Catch::Contains("Permission denied"));
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);  // none is left
  CHECK(errno == ECHILD);
  command = shell("exit 0", folder / "text" / "log");
  CHECK_THROWS_AS(ChildProcess(command), IoError);
}

TEST_CASE("output goes to the end of the log, and its tail into the report", "[actors][cpu]") {
  const TempDir folder;
  const fs::path log = folder / "logs" / "a.log";
  run(shell("echo first", log));
  ChildCommand command =
      shell("for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2; exit 3", log);
  command.tail_lines = 3;
  const ExitReport report = run(command);
  CHECK(report.log_tail == std::vector<std::string>{"line 4", "line 5", "bad"});
  CHECK(content(log) == "first\nline 1\nline 2\nline 3\nline 4\nline 5\nbad\n");
  CHECK_THAT(report.text(), Catch::Contains("exit status 3 (the job ended, its goal was not met)"));
  CHECK_THAT(report.text(), Catch::Contains(log.string() + "\n  | line 4\n"));
  CHECK(report.peak_memory_bytes > 0);
  CHECK(run(shell("true", log)).log_tail.empty());  // not what stood there before
}

TEST_CASE("a child starts with a clean slate", "[actors][cpu]") {
  const TempDir folder;
  const fs::path log = folder / "log";
  const int leak = ::open("/dev/null", O_RDONLY);  // not closed on exec
  const auto before = ::signal(SIGPIPE, SIG_IGN);
  ::setenv("PRAETOR_TEST_A", "ours", 1);
  ChildCommand command = shell(
      "echo $PRAETOR_TEST_A $PRAETOR_TEST_B; cut -d' ' -f5 /proc/$$/stat; "
      "exec grep -E 'SigIgn|SigBlk' /proc/self/status -",
      log);
  command.environment = {{"PRAETOR_TEST_A", "theirs"}, {"PRAETOR_TEST_B", "b c"}};
  ChildProcess child(command);
  REQUIRE(child.wait(kLong));
  CHECK(content(log) == "theirs b c\n" + std::to_string(child.pid()) +
                            "\n/proc/self/status:SigBlk:\t0000000000000000"
                            "\n/proc/self/status:SigIgn:\t0000000000000000\n");

  const ChildProcess sleeper(shell("exec sleep 100", log));
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(str("/proc/", sleeper.pid(), "/fd")))
    files[entry.path().filename().string()] = fs::read_symlink(entry.path()).string();
  CHECK(files == std::map<std::string, std::string>{
                     {"0", "/dev/null"}, {"1", log.string()}, {"2", log.string()}});
  ::unsetenv("PRAETOR_TEST_A");
  ::signal(SIGPIPE, before);
  ::close(leak);
}

TEST_CASE("a wait ends at its time", "[actors][cpu]") {
  ChildProcess child(shell("exec sleep 100"));
  CHECK(child.poll() == nullptr);
  CHECK(child.wait(milliseconds(10)) == nullptr);
  child.kill("no heartbeat for 30 s");
  const ExitReport* report = child.wait(kLong);
  REQUIRE(report);
  CHECK(report->how() == "killed by SIGKILL; we ended it: no heartbeat for 30 s");
  CHECK(report->memory == ExitReport::Memory::kNoSign);
  CHECK(child.wait(kLong) == report);
  child.kill("again");  // nothing happens
  CHECK(dead(child.pid()));
}

TEST_CASE("an orderly end has its grace, then comes the other", "[actors][cpu]") {
  const TempDir folder;
  const fs::path log = folder / "log";
  const auto ready = [&] { return content(log).find("ready") != std::string::npos; };
  {
    ChildProcess child(
        shell("trap 'echo saved; exit 7' TERM; echo ready; while :; do sleep 0.01; done", log));
    REQUIRE(eventually(ready));
    const ExitReport& report = child.terminate(kLong, "the run ends");
    CHECK(report.status == 7);
    CHECK(report.log_tail.back() == "saved");
  }
  fs::remove(log);
  {
    ChildProcess child(shell("trap '' TERM; echo ready; while :; do sleep 0.01; done", log));
    REQUIRE(eventually(ready));
    const ExitReport& report = child.terminate(milliseconds(30), "the run ends");
    CHECK(report.signal == SIGKILL);
    CHECK(report.how() ==
          "killed by SIGKILL; we ended it: the run ends; SIGTERM had not ended it after 30 ms");
  }
}

TEST_CASE("a stopped process can be ended", "[actors][cpu]") {
  ChildProcess asked(shell("exec sleep 100"));
  asked.signal(SIGSTOP);
  REQUIRE(eventually([&] { return testing::state(asked.pid()) == 'T'; }));
  CHECK(asked.poll() == nullptr);
  CHECK(asked.terminate(kLong, "x").signal == SIGTERM);
  ChildProcess hung(shell("exec sleep 100"));
  hung.signal(SIGSTOP);
  REQUIRE(eventually([&] { return testing::state(hung.pid()) == 'T'; }));
  hung.kill("hung");
  REQUIRE(hung.wait(kLong));
  CHECK(hung.wait(kLong)->signal == SIGKILL);
}

TEST_CASE("no process of the group outlives its leader", "[actors][cpu]") {
  const TempDir folder;
  const fs::path file = folder / "pid";
  SECTION("that ended by itself") {
    ChildProcess child(shell("sleep 100 & echo $! > " + file.string() + "; exit 0"));
    REQUIRE(child.wait(kLong));
    CHECK(child.wait(kLong)->success());
  }
  SECTION("that was killed") {
    ChildProcess child(shell("sleep 100 & echo $! > " + file.string() + "; wait"));
    pid_in(file);
    child.kill("x");
    REQUIRE(child.wait(kLong));
  }
  SECTION("that nobody waited for") {
    ChildProcess child(shell("sleep 100 & echo $! > " + file.string() + "; wait"));
    pid_in(file);
  }
  const pid_t grandchild = pid_in(file);
  CHECK(eventually([&] { return dead(grandchild); }));
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);  // and no zombie of ours
}

TEST_CASE("a child outlives the thread that asked for it", "[actors][cpu]") {
  std::unique_ptr<ChildProcess> child;
  std::thread([&] { child = std::make_unique<ChildProcess>(shell("exec sleep 100")); }).join();
  CHECK(child->wait(milliseconds(50)) == nullptr);
}

TEST_CASE("a child dies with a parent that is killed", "[actors][cpu]") {
  const TempDir folder;
  const fs::path file = folder / "pid";
  const pid_t parent = ::fork();
  if (parent == 0) {
    // No exception may leave the copy of this test.
    try {
      ChildProcess child(shell("echo $$ > " + file.string() + "; exec sleep 100"));
      for (;;) ::pause();
    } catch (...) {
    }
    ::_exit(1);
  }
  const pid_t child = pid_in(file);
  CHECK_FALSE(dead(child));
  ::kill(parent, SIGKILL);
  CHECK(::waitpid(parent, nullptr, 0) == parent);
  CHECK(eventually([&] { return dead(child); }));
}

}  // namespace praetor
