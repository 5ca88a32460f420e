#include "reward/sandbox/sandbox.h"

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/base/fs.h"
#include "tests/support/catch.h"
#include "tests/support/sandbox.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

using End = SandboxResult::End;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

SandboxResult python(const std::string& program,
                     SandboxLimits limits = {},
                     const std::string& input = "",
                     std::vector<std::filesystem::path> folders = {}) {
  return Sandbox(limits, std::move(folders))
      .run({"/usr/bin/python3", "-s", "-B", "-c", program}, input, Deadline::never());
}

/// Processes of this machine whose command line has `word`.
int running(const std::string& word) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "cmdline");
    const std::string line((std::istreambuf_iterator<char>(file)), {});
    count += line.find(word) != std::string::npos ? 1 : 0;
  }
  return count;
}

/// Nothing of that name runs any more, or will soon not.
bool gone(const std::string& word) {
  for (const auto end = steady_clock::now() + std::chrono::seconds(5); steady_clock::now() < end;) {
    if (running(word) == 0) return true;
    ::usleep(20'000);
  }
  return false;
}

}  // namespace

TEST_CASE("a program in the sandbox has its input, output and exit status", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const SandboxResult result =
      python("import sys; print(sys.stdin.read().upper()); print('so', file=sys.stderr); exit(7)",
             {},
             "abc");
  CHECK(result.end == End::kExited);
  CHECK(result.status == 7);
  CHECK(result.output == "ABC\n");
  CHECK(result.errors == "so\n");
  const std::string large(300'000, 'x');
  CHECK(python("import sys; print(len(sys.stdin.read()))", {}, large).output == "300000\n");
  CHECK(python("print('only output')", {}, large).output ==
        "only output\n");  // nobody reads the input
  CHECK(python("import os; os.kill(os.getpid(), 9)").status == 128 + 9);
}

TEST_CASE("a program in the sandbox sees no files, network, environment or process of ours",
          "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  ::setenv("PRAETOR_TEST_SECRET", "told", 1);
  const std::string tried = R"(
import os, socket, subprocess
def attempt(name, action):
    try:
        action()
        print(name, "done")
    except BaseException as failure:
        print(name, type(failure).__name__)
attempt("write /usr", lambda: open("/usr/x", "w"))
attempt("write /", lambda: open("/x", "w"))
attempt("write /dev", lambda: open("/dev/x", "w"))
attempt("read /etc/passwd", lambda: open("/etc/passwd"))
attempt("read /root", lambda: os.listdir("/root"))
attempt("proc", lambda: os.listdir("/proc"))
attempt("socket", lambda: socket.socket())
attempt("pair", lambda: socket.socketpair())
attempt("namespace", lambda: subprocess.run(["/usr/bin/unshare", "-U", "/usr/bin/true"], check=True))
attempt("mount", lambda: subprocess.run(["/usr/bin/mount", "-t", "tmpfs", "x", "/tmp"], check=True, stderr=subprocess.DEVNULL))
attempt("scratch", lambda: open("/tmp/x", "w").write("x"))
attempt("kill", lambda: os.kill(1, 9))
print(sorted(os.environ), os.getuid(), os.getpid() < 10)
)";
  const SandboxResult result = python(tried);
  CHECK(result.output ==
        "write /usr OSError\nwrite / OSError\nwrite /dev OSError\nread /etc/passwd "
        "FileNotFoundError\n"
        "read /root FileNotFoundError\nproc FileNotFoundError\nsocket PermissionError\npair done\n"
        "namespace CalledProcessError\nmount CalledProcessError\nscratch done\nkill done\n"
        "['HOME', 'LANG', 'PATH', 'PWD', 'PYTHONHASHSEED'] 65534 True\n");
  ::unsetenv("PRAETOR_TEST_SECRET");
  CHECK(result.status == 0);
}

TEST_CASE("a program that never ends is ended, with all that it started", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const std::string mark = str("never_ends_", ::getpid());
  const SandboxLimits limits{.wall = milliseconds(700)};
  const auto begin = steady_clock::now();
  const SandboxResult result =
      python("import os, time  # " + mark +
                 "\nfor i in range(4):\n    if os.fork() == 0: os.setsid()\n"
                 "while True: time.sleep(1)",
             limits);
  CHECK(result.end == End::kWall);
  CHECK(steady_clock::now() - begin < std::chrono::seconds(10));
  CHECK(gone(mark));
  // One that leaves children behind ends them by ending.
  const SandboxResult parent = python("import os, time  # " + mark +
                                      "\nif os.fork() == 0:\n    time.sleep(1000)\nprint('bye')");
  CHECK((parent.end == End::kExited || parent.end == End::kWall));
  CHECK(parent.output == "bye\n");
  CHECK(gone(mark));
}

TEST_CASE("a deadline ends a program before its own limits do", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const std::string mark = str("deadline_", ::getpid());
  const Sandbox sandbox({});
  CHECK_THROWS_AS(
      sandbox.run({"/usr/bin/python3", "-c", "import time  # " + mark + "\ntime.sleep(1000)"},
                  "",
                  Deadline::after(milliseconds(300))),
      TimeoutError);
  CHECK(gone(mark));
}

TEST_CASE("memory is bounded over all processes, scratch files and output too", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const SandboxLimits small{
      .memory_bytes = 200 << 20, .scratch_bytes = 1 << 20, .output_bytes = 1000};
  CHECK(python("import os, time\nfor i in range(5):\n    if os.fork() == 0:\n        x = "
               "bytearray(b'x' * (60 << 20)); time.sleep(1000)\ntime.sleep(1000)",
               small)
            .end == End::kMemory);
  CHECK(python("try:\n    open('/tmp/x', 'wb').write(bytes(2 << 20))\nexcept OSError as e: "
               "print(e.strerror)",
               small)
            .output == "No space left on device\n");
  const SandboxResult loud = python("while True: print('x' * 1000)", small);
  CHECK(loud.end == End::kOutput);
  CHECK(loud.output.size() == 1000);
}

TEST_CASE("a fork bomb ends without harm", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const std::string mark = str("fork_bomb_", ::getpid());
  const SandboxLimits limits{.wall = milliseconds(1000)};
  const SandboxResult result =
      python("import os, resource  # " + mark +
                 "\nresource.setrlimit(resource.RLIMIT_NPROC, (20, 20))\n"
                 "while True:\n    try: os.fork()\n    except BlockingIOError: pass",
             limits);
  CHECK(result.end == End::kWall);
  CHECK(running(mark) <= 60);  // those of the sandbox on their way out
  CHECK(gone(mark));
}

TEST_CASE("further folders can be read, not written", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  const testing::TempDir dir;
  write_file_atomic(dir / "given.txt", "given");
  std::filesystem::permissions(dir.path(), std::filesystem::perms(0755));
  std::filesystem::permissions(dir / "given.txt", std::filesystem::perms(0644));
  const std::string path = (dir / "given.txt").string();
  CHECK(python("print(open('" + path + "').read())", {}, "", {dir.path()}).output == "given\n");
  CHECK(python("open('" + path + "', 'w')", {}, "", {dir.path()}).status == 1);
  CHECK(read_file(dir / "given.txt") == "given");
}

TEST_CASE("a program that is not there is no verdict", "[reward][cpu]") {
  PRAETOR_REQUIRE_SANDBOX();
  CHECK_THROWS_WITH(
      Sandbox({}).run({"/usr/bin/no-such-program"}, "", Deadline::never()),
      Catch::Contains("the sandbox cannot be made") && Catch::Contains("no-such-program"));
}

}  // namespace praetor
