#include "core/base/piped_child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/base/exec_child.h"
#include "core/base/lasting_thread.h"
#include "core/base/log.h"
#include "core/base/text.h"

namespace praetor {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr milliseconds kKillPatience{10'000};

/// Both ends of a pipe; those still held are closed at the end.
class Pipe {
 public:
  Pipe() {
    if (::pipe2(ends_, O_CLOEXEC) != 0)
      throw TemporaryError("cannot make a pipe: ", std::strerror(errno));
    // None of ours may be one of the numbers that the child replaces.
    for (int& end : ends_) {
      if (end > STDERR_FILENO) continue;
      const int moved = ::fcntl(end, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
      ::close(std::exchange(end, moved));
    }
  }
  ~Pipe() {
    for (const int end : ends_) {
      if (end >= 0) ::close(end);
    }
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  int read_end() const { return ends_[0]; }
  int write_end() const { return ends_[1]; }
  void close_write_end() { ::close(std::exchange(ends_[1], -1)); }
  int release_read_end() { return release(ends_[0]); }
  int release_write_end() { return release(ends_[1]); }

 private:
  static int release(int& end) {
    ::fcntl(end, F_SETFL, O_NONBLOCK);
    return std::exchange(end, -1);
  }
  int ends_[2] = {-1, -1};
};

}  // namespace

PipedChild::PipedChild(std::vector<std::string> command, std::span<const int> handed_on)
    : shown_(str("\"", printable(join(command, " "), 120), "\"")) {
  PRAETOR_CHECK(!command.empty(), "a program has a name");
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  Pipe input, output, errors, failure;
  ChildPlan plan;
  plan.program = argv[0];
  plan.argv = argv.data();
  plan.parent = ::getpid();
  plan.input = input.read_end();
  plan.output = output.write_end();
  plan.errors = errors.write_end();
  plan.failure = failure.write_end();
  plan.handed_on = handed_on.data();
  plan.handed_on_count = static_cast<int>(handed_on.size());
  int code = 0;
  // The bond of PR_SET_PDEATHSIG is to the thread that forks, and ours may end before the child.
  on_lasting_thread([&] {
    pid_ = ::fork();
    code = errno;
    if (pid_ == 0) exec_child(plan);
  });
  if (pid_ < 0) throw TemporaryError("cannot start ", shown_, ": ", std::strerror(code));
  failure.close_write_end();
  code = read_exec_failure(failure.read_end());
  if (code != 0) {
    collect(milliseconds(1000));
    const std::string message = str("cannot start ", shown_, ": ", std::strerror(code));
    if (code == ENOENT || code == ENOTDIR || code == EACCES) throw MissingInput(message);
    throw TemporaryError(message);
  }
  input_ = input.release_write_end();
  output_ = output.release_read_end();
  errors_ = errors.release_read_end();
}

PipedChild::~PipedChild() {
  collect(milliseconds(0));
  for (const int fd : {input_, output_, errors_}) {
    if (fd >= 0) ::close(fd);
  }
}

void PipedChild::close_input() {
  if (input_ >= 0) ::close(std::exchange(input_, -1));
}

void PipedChild::close_errors() {
  if (errors_ >= 0) ::close(std::exchange(errors_, -1));
}

int PipedChild::collect(milliseconds patience) {
  if (pid_ < 0) return status_;
  const auto ended = [this] {
    siginfo_t info{};
    return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
           info.si_pid != 0;
  };
  const auto wait = [&](milliseconds span) {
    for (const auto end = steady_clock::now() + span; !ended() && steady_clock::now() < end;)
      std::this_thread::sleep_for(milliseconds(1));
  };
  wait(patience);
  // While the leader is not collected nobody else can get its group's number.
  ::kill(-pid_, SIGKILL);
  wait(kKillPatience);
  if (::waitpid(pid_, &status_, WNOHANG) == 0)
    log::error(str("process ", pid_, " (", shown_, ") does not end"));
  pid_ = -1;
  return status_;
}

ssize_t write_quietly(int fd, std::string_view bytes) {
  sigset_t pipe_signal, before, pending;
  ::sigemptyset(&pipe_signal);
  ::sigaddset(&pipe_signal, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  ::sigpending(&pending);
  const bool was_pending = ::sigismember(&pending, SIGPIPE) == 1;
  const ssize_t put = ::write(fd, bytes.data(), bytes.size());
  const int code = errno;
  if (put < 0 && code == EPIPE && !was_pending) {
    const timespec now{};
    while (::sigtimedwait(&pipe_signal, nullptr, &now) < 0 && errno == EINTR) {
    }
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = code;
  return put;
}

bool read_some(int fd, std::string& out) {
  char bytes[16384];
  const ssize_t got = ::read(fd, bytes, sizeof(bytes));
  if (got > 0) out.append(bytes, static_cast<size_t>(got));
  return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

}  // namespace praetor
