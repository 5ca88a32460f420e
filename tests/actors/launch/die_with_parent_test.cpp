#include "actors/launch/die_with_parent.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/actors/launch/processes.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::dead;
using testing::eventually;

namespace {

/// Forks a process that runs `body` and then waits for ever.
template <typename Body>
pid_t forked(Body body) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  try {
    body();
    for (;;) ::pause();
  } catch (...) {
  }
  ::_exit(1);
}

}  // namespace

TEST_CASE("a process that asked for it dies with its parent", "[actors][cpu]") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t parent = forked([&] {
    forked([&] {
      die_with_parent();
      const pid_t self = ::getpid();
      if (::write(ends[1], &self, sizeof(self)) < 0) ::_exit(1);
    });
  });
  pid_t child = 0;
  REQUIRE(::read(ends[0], &child, sizeof(child)) == sizeof(child));
  CHECK_FALSE(dead(child));
  ::kill(parent, SIGKILL);
  CHECK(::waitpid(parent, nullptr, 0) == parent);
  CHECK(eventually([&] { return dead(child); }));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("a parent that is gone already ends the process at once", "[actors][cpu]") {
  const pid_t ours = ::getpid();
  const pid_t orphan = forked([&] { die_with_parent(ours + 1); });
  int status = 0;
  CHECK(::waitpid(orphan, &status, 0) == orphan);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGKILL);
  const pid_t child = forked([&] {
    die_with_parent(ours);
    ::_exit(5);
  });
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 5);
}

}  // namespace praetor
