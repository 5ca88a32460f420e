#include "core/base/exec_child.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "core/base/fs.h"
#include "core/base/lasting_thread.h"
#include "core/base/str.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

using testing::TempDir;
namespace fs = std::filesystem;

/// A file of a number above stderr, closed at the end.
class File {
 public:
  File(const fs::path& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    REQUIRE(fd_ > STDERR_FILENO);
  }
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

struct End {
  int failure = 0;  ///< errno of what failed before the program
  int status = 0;   ///< exit status
};

/// Runs the plan with an empty stdin to its end.
End run(ChildPlan plan, std::vector<std::string> words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const File input("/dev/null", O_RDONLY);
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  plan.program = argv[0];
  plan.argv = argv.data();
  plan.parent = ::getpid();
  plan.input = input.get();
  plan.failure = ends[1];
  pid_t child = -1;
  on_lasting_thread([&] {
    child = ::fork();
    if (child == 0) exec_child(plan);
  });
  ::close(ends[1]);
  End out{.failure = read_exec_failure(ends[0])};
  ::close(ends[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  out.status = WEXITSTATUS(status);
  return out;
}

}  // namespace

TEST_CASE("a child has the files of its plan, and no other of ours", "[core][cpu]") {
  const TempDir dir;
  const File output(dir / "out", O_WRONLY | O_CREAT), errors(dir / "err", O_WRONLY | O_CREAT);
  const int kept = ::dup(output.get());  // a file that would be inherited
  const std::string script =
      str("echo to stdout; echo to stderr >&2; (: >&", kept, ") 2>/dev/null && echo inherited");
  const End end = run({.output = output.get(), .errors = errors.get()}, {"sh", "-c", script});
  ::close(kept);
  CHECK(end.failure == 0);
  CHECK(end.status != 0);
  CHECK(read_file(dir / "out") == "to stdout\n");
  CHECK(read_file(dir / "err") == "to stderr\n");
}

TEST_CASE("a child leads its group, and has the environment that it is given", "[core][cpu]") {
  const TempDir dir;
  const File output(dir / "out", O_WRONLY | O_CREAT);
  std::string one = "ONLY=this";
  char* const environment[] = {one.data(), nullptr};
  const std::string script =
      "echo $ONLY; read -r _ _ _ _ group _ < /proc/$$/stat; [ $group = $$ ] && echo leads";
  const End end = run({.environment = environment, .output = output.get(), .errors = output.get()},
                      {"/bin/sh", "-c", script});
  CHECK(end.failure == 0);
  CHECK(end.status == 0);
  CHECK(read_file(dir / "out") == "this\nleads\n");
}

TEST_CASE("a child without a program says why", "[core][cpu]") {
  CHECK(run({}, {"no-such-program"}).failure == ENOENT);
  CHECK(run({}, {"/dev/null"}).failure == EACCES);
  char* const none[] = {nullptr};
  CHECK(run({.environment = none}, {"sh"}).failure == ENOENT);  // PATH is not looked through
}

}  // namespace praetor
