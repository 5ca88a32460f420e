#include "actors/launch/supervisor.h"

#include <sys/wait.h>

#include <string>
#include <vector>

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

/// A supervisor whose events are kept as text, with a clock that the test moves.
struct Watched {
  std::vector<std::string> events;
  std::chrono::steady_clock::time_point now{};
  ExitReport last;
  Supervisor supervisor{
      {[this](const std::string& name, pid_t, int64_t incarnation) {
         events.push_back(str("started ", name, ' ', incarnation));
       },
       [this](const std::string& name, int64_t incarnation, const ExitReport& report) {
         events.push_back(str("died ", name, ' ', incarnation, ' ', report.exit_status()));
         last = report;
       },
       [this](const std::string& name, const std::string& why) {
         events.push_back(str("gave up ", name, ": ", why));
       }},
      {1, [this] { return now; }}};

  /// Polls until there are as many events, and gives the newest.
  std::string event(size_t count) {
    const auto end = std::chrono::steady_clock::now() + kLong;
    while (events.size() < count && std::chrono::steady_clock::now() < end) supervisor.poll(kLong);
    REQUIRE(events.size() == count);
    return events.back();
  }
};

ProcessSpec spec(const std::string& name, const std::string& script) {
  ProcessSpec out;
  out.name = name;
  out.command = shell(script);
  return out;
}

}  // namespace

TEST_CASE("a process that ends well is not started again", "[actors][cpu]") {
  Watched run;
  run.supervisor.add(spec("a", "exit 0"));
  CHECK(run.events == std::vector<std::string>{"started a 1"});
  CHECK(run.supervisor.names() == std::vector<std::string>{"a"});
  CHECK_THROWS_AS(run.supervisor.add(spec("a", "exit 0")), InvalidArgument);
  CHECK(run.event(2) == "died a 1 0");
  CHECK_FALSE(run.supervisor.alive("a"));
  CHECK_FALSE(run.supervisor.poll(milliseconds(1)));
  // The name may be used again, by another incarnation.
  run.supervisor.add(spec("a", "exit 0"));
  CHECK(run.event(4) == "died a 2 0");
  CHECK(run.supervisor.restarts() == 0);
}

TEST_CASE("failures are started again, later each time, until there were too many",
          "[actors][cpu]") {
  Watched run;
  ProcessSpec failing = spec("a", "exit 70");
  failing.max_restarts = 3;
  failing.backoff = milliseconds(1000);
  failing.max_backoff = milliseconds(3000);
  run.supervisor.add(failing);
  size_t events = 1;
  for (const int64_t delay : {1000, 2000, 3000}) {
    run.event(++events);
    CHECK(run.events.back().starts_with("died a "));
    CHECK(run.supervisor.alive("a"));
    CHECK_FALSE(run.supervisor.running("a"));
    run.now += milliseconds(delay - 1);
    CHECK_FALSE(run.supervisor.poll(milliseconds(0)));
    run.now += milliseconds(1);
    ++events;
    CHECK(run.event(events) == str("started a ", events / 2 + 1));
  }
  CHECK(run.event(events + 2) ==
        "gave up a: exit status 70 (a mistake of Praetor's own), after 3 restarts within 600 s");
  CHECK_FALSE(run.supervisor.alive("a"));
  CHECK(run.supervisor.restarts() == 3);
  CHECK(run.supervisor.incarnation("a") == 4);
}

TEST_CASE("a disk that fails three times in a row is not tried again", "[actors][cpu]") {
  Watched run;
  ProcessSpec failing = spec("a", "exit 74");
  failing.backoff = milliseconds(0);
  run.supervisor.add(failing);
  CHECK(run.event(7) == "gave up a: exit status 74 (disk or I/O): another try would end alike");
  CHECK(run.supervisor.restarts() == 2);
}

TEST_CASE("restarts that are long past count no more", "[actors][cpu]") {
  Watched run;
  ProcessSpec failing = spec("a", "exit 1");
  failing.max_restarts = 1;
  failing.window = milliseconds(10'000);
  failing.backoff = milliseconds(100);
  run.supervisor.add(failing);
  run.event(2);
  run.now += milliseconds(100);
  CHECK(run.event(3) == "started a 2");
  run.now += milliseconds(10'000);
  CHECK(run.event(4) == "died a 2 1");
  run.now += milliseconds(100);
  CHECK(run.event(5) == "started a 3");
  CHECK(run.event(7).starts_with("gave up a: exit status 1, after 1 restarts within 10 s"));
}

TEST_CASE("what another try would only repeat is not tried", "[actors][cpu]") {
  const int status = GENERATE(64, 65, 66, 77, 78);
  Watched run;
  ProcessSpec always = spec("a", "exit " + std::to_string(status));
  always.restart = Restart::kAlways;
  run.supervisor.add(always);
  CHECK(run.event(3).starts_with(str("gave up a: exit status ", status, " (")));
  CHECK_FALSE(run.supervisor.alive("a"));
}

TEST_CASE("the policies never and always", "[actors][cpu]") {
  Watched run;
  ProcessSpec once = spec("once", "exit 1");
  once.restart = Restart::kNever;
  run.supervisor.add(once);
  CHECK(run.event(3) == "gave up once: exit status 1");
  ProcessSpec always = spec("always", "exit 0");
  always.restart = Restart::kAlways;
  always.backoff = milliseconds(0);
  run.supervisor.add(always);
  CHECK(run.event(6) == "started always 2");  // in the same poll that saw it die
}

TEST_CASE("a program that went away is given up", "[actors][cpu]") {
  const TempDir folder;
  const fs::path program = folder / "program";
  fs::copy_file("/bin/false", program);
  Watched run;
  ProcessSpec failing = spec("a", "");
  failing.command.argv = {program.string()};
  failing.backoff = milliseconds(0);
  failing.max_restarts = 1000;
  run.supervisor.add(failing);
  fs::remove(program);
  while (run.supervisor.alive("a")) run.supervisor.poll(kLong);
  CHECK_THAT(run.events.back(), Catch::Contains("gave up a: cannot start"));
  failing.name = "b";
  CHECK_THROWS_AS(run.supervisor.add(failing), MissingInput);
  CHECK_FALSE(run.supervisor.alive("b"));
}

TEST_CASE("a hung process is killed, stopped or not, and started again", "[actors][cpu]") {
  const TempDir folder;
  const fs::path log = folder / "log";
  Watched run;
  ProcessSpec hung = spec("a", "echo $PRAETOR_INCARNATION $$; exec sleep 100");
  hung.command.log_file = log;
  hung.backoff = milliseconds(0);
  run.supervisor.add(hung);
  const auto ready = [&] { return content(log).find('\n') != std::string::npos; };
  REQUIRE(eventually(ready));
  CHECK(content(log).starts_with("1 "));
  const auto pid = static_cast<pid_t>(std::stol(content(log).substr(2)));
  ::kill(pid, SIGSTOP);
  REQUIRE(eventually([&] { return testing::state(pid) == 'T'; }));
  CHECK_FALSE(run.supervisor.poll(milliseconds(0)));  // a stop is not an end
  CHECK(run.supervisor.kill("a", "no heartbeat for 30 s"));
  CHECK(run.event(3) == "started a 2");
  CHECK(run.events[1] == "died a 1 137");
  CHECK(run.last.killed_by == "no heartbeat for 30 s");
  CHECK(run.last.memory == ExitReport::Memory::kNoSign);
  CHECK(dead(pid));
  CHECK_FALSE(run.supervisor.kill("b", "x"));
}

TEST_CASE("all are stopped together, the deaf ones by force, and none comes back",
          "[actors][cpu]") {
  const TempDir folder;
  const fs::path log = folder / "log";
  Watched run;
  ProcessSpec deaf = spec("deaf", "trap '' TERM; echo ready; while :; do sleep 0.01; done");
  deaf.command.log_file = log;
  run.supervisor.add(deaf);
  run.supervisor.add(spec("quick", "exec sleep 100"));
  run.supervisor.add(spec("waiting", "exit 1"));
  run.event(4);  // waiting has died and is to be started again
  CHECK(run.supervisor.alive("waiting"));
  REQUIRE(eventually([&] { return !content(log).empty(); }));
  const auto begin = std::chrono::steady_clock::now();
  run.supervisor.stop_all(milliseconds(100));
  CHECK(std::chrono::steady_clock::now() - begin < kLong);
  CHECK(run.events[4] == "died quick 1 143");
  CHECK(run.events[5] == "died deaf 1 137");
  CHECK(run.events.size() == 6);
  CHECK_THAT(run.last.killed_by, Catch::Contains("the run ends; SIGTERM had not ended it"));
  run.now += std::chrono::hours(1);
  CHECK_FALSE(run.supervisor.poll(milliseconds(0)));
  CHECK(run.supervisor.names().empty());
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
}

TEST_CASE("one of several can be stopped for good", "[actors][cpu]") {
  Watched run;
  run.supervisor.add(spec("a", "exec sleep 100"));
  run.supervisor.add(spec("b", "exec sleep 100"));
  run.supervisor.stop("a", kLong, "not needed");
  CHECK(run.events.back() == "died a 1 143");
  CHECK(run.supervisor.names() == std::vector<std::string>{"b"});
  run.supervisor.stop("unknown", kLong, "x");
}

TEST_CASE("a supervisor that goes takes its processes along", "[actors][cpu]") {
  pid_t pid = 0;
  {
    Supervisor supervisor(
        {[&](const std::string&, pid_t started, int64_t) { pid = started; }, {}, {}});
    supervisor.add(spec("a", "exec sleep 100"));
    CHECK_FALSE(dead(pid));
  }
  CHECK(dead(pid));
}

TEST_CASE("waiting ends when a process does, not before and not much later", "[actors][cpu]") {
  Watched run;
  run.supervisor.add(spec("a", "exec sleep 0.05"));
  const auto begin = std::chrono::steady_clock::now();
  CHECK(run.supervisor.poll(kLong));
  CHECK(std::chrono::steady_clock::now() - begin < kLong / 2);
  CHECK(run.events.size() == 2);
}

TEST_CASE("a command that is made anew says what each start runs", "[actors][cpu]") {
  Watched run;
  ProcessSpec moving = spec("a", "exit 1");
  moving.restart = Restart::kAlways;
  moving.renew = [](int64_t attempt) {
    if (attempt == 2) throw TemporaryError("no node is there");
    return shell(str("exit ", attempt + 4));
  };
  run.supervisor.add(moving);
  CHECK(run.event(2) == "died a 1 5");
  // The second start failed before it began, and is made up for.
  run.now += milliseconds(600);
  CHECK(run.supervisor.poll(milliseconds(0)));
  CHECK(run.events.size() == 2);
  run.now += milliseconds(60'000);
  CHECK(run.event(4) == "died a 3 7");
  CHECK(run.supervisor.all_names() == std::vector<std::string>{"a"});
}

}  // namespace praetor
