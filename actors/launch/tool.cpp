#include "actors/launch/tool.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "core/base/error.h"
#include "core/base/exec_child.h"
#include "core/base/lasting_thread.h"
#include "core/base/text.h"

namespace praetor {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

/// Both ends are closed with it.
struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
      throw TemporaryError("cannot make a pipe: ", std::strerror(errno));
    read = ends[0];
    write = ends[1];
  }
  ~Pipe() {
    close_write();
    ::close(read);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_write() {
    if (write >= 0) ::close(write);
    write = -1;
  }
};

int collect(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/// Reads both to their ends. @return false when the time is over
bool read_all(const std::array<Pipe*, 2>& pipes,
              const std::array<std::string*, 2>& texts,
              steady_clock::time_point end) {
  std::array<pollfd, 2> wanted{pollfd{pipes[0]->read, POLLIN, 0},
                               pollfd{pipes[1]->read, POLLIN, 0}};
  while (wanted[0].fd >= 0 || wanted[1].fd >= 0) {
    const auto left = std::chrono::ceil<milliseconds>(end - steady_clock::now()).count();
    if (left <= 0) return false;
    if (::poll(wanted.data(), wanted.size(), static_cast<int>(left)) < 0 && errno != EINTR)
      throw TemporaryError("poll: ", std::strerror(errno));
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (wanted[i].fd < 0 || wanted[i].revents == 0) continue;
      char bytes[4096];
      const ssize_t got = ::read(wanted[i].fd, bytes, sizeof(bytes));
      if (got > 0) texts[i]->append(bytes, static_cast<size_t>(got));
      if (got == 0 || (got < 0 && errno != EINTR)) wanted[i].fd = -1;
      wanted[i].revents = 0;
    }
  }
  return true;
}

void trim_end(std::string& text) {
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
}

}  // namespace

ToolResult run_tool(const std::vector<std::string>& argv, milliseconds timeout) {
  std::vector<std::string> words = argv;
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);

  const int input = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (input < 0) throw IoError("cannot open /dev/null: ", std::strerror(errno));
  Pipe out, err, failure;
  ChildPlan plan;
  plan.program = words[0].c_str();
  plan.argv = pointers.data();
  plan.parent = ::getpid();
  plan.input = input;
  plan.output = out.write;
  plan.errors = err.write;
  plan.failure = failure.write;
  pid_t pid = -1;
  int code = 0;
  on_lasting_thread([&] {
    pid = ::fork();
    code = errno;
    if (pid == 0) exec_child(plan);
  });
  ::close(input);
  if (pid < 0) throw TemporaryError("cannot start ", words[0], ": ", std::strerror(code));
  for (Pipe* pipe : {&out, &err, &failure}) pipe->close_write();
  code = read_exec_failure(failure.read);
  if (code != 0) {
    collect(pid);
    if (code == ENOENT) throw MissingInput(words[0], ": no such program in PATH");
    throw TemporaryError("cannot start ", words[0], ": ", std::strerror(code));
  }

  ToolResult result;
  const bool in_time =
      read_all({&out, &err}, {&result.out, &result.err}, steady_clock::now() + timeout);
  if (!in_time) ::kill(-pid, SIGKILL);
  result.status = collect(pid);
  if (!in_time)
    throw TemporaryError(join(argv, " "), ": no end after ", timeout.count() / 1000, " s");
  trim_end(result.out);
  trim_end(result.err);
  return result;
}

}  // namespace praetor
