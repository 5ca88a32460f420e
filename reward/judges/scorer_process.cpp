#include "reward/judges/scorer_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <string_view>
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

constexpr size_t kLongestAnswer = size_t{1} << 20;
constexpr size_t kErrorsKept = 4096;
constexpr int kPollMs = 10;  // how often the deadline is asked
constexpr milliseconds kGrace{1000};
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

/// Writes without SIGPIPE, which would end our whole process when the reader is gone.
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

/// Appends what can be read now. @return false at the end of the stream
bool read_some(int fd, std::string& out) {
  char bytes[16384];
  const ssize_t got = ::read(fd, bytes, sizeof(bytes));
  if (got > 0) out.append(bytes, static_cast<size_t>(got));
  return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

}  // namespace

ScorerProcess::ScorerProcess(std::vector<std::string> command, milliseconds start_timeout)
    : command_(std::move(command)), start_timeout_(start_timeout) {
  PRAETOR_CHECK(!command_.empty(), "a scorer has a command");
}

ScorerProcess::~ScorerProcess() {
  if (pid_ < 0) return;
  ::close(std::exchange(stdin_, -1));
  collect(kGrace);
  close_all();
}

std::string ScorerProcess::ask(const std::string& line, const Deadline& deadline) {
  for (bool again = false;; again = true) {
    deadline.check();
    if (pid_ >= 0 && owes_) {
      const Outcome outcome = settle_debt(deadline);
      if (outcome == Outcome::kTimeout) give_up(deadline);
      if (outcome == Outcome::kEnded) stop();  // over what it was asked before
    }
    if (pid_ < 0) start();
    const bool proven = answered_;
    to_send_ = line + "\n";
    std::string answer;
    switch (flush_and_read(answer, deadline)) {
      case Outcome::kDone:
        answered_ = true;
        return answer;
      case Outcome::kTimeout:
        give_up(deadline);
      case Outcome::kEnded:
        break;
    }
    const std::string report = end_report();
    if (!proven || again) throw DataError(report);
  }
}

ScorerProcess::Outcome ScorerProcess::settle_debt(const Deadline& deadline) {
  std::string unwanted;
  const Outcome outcome = flush_and_read(unwanted, deadline);
  if (outcome == Outcome::kDone) {
    answered_ = true;
    owes_ = false;
  }
  return outcome;
}

void ScorerProcess::give_up(const Deadline& deadline) {
  // A program that still starts may yet be of use to others; one that has answered before hangs.
  if (!answered_ && steady_clock::now() - started_ < start_timeout_) {
    owes_ = true;
  } else {
    stop();
  }
  throw TimeoutError(deadline.message());
}

void ScorerProcess::start() {
  std::vector<char*> argv;
  for (std::string& word : command_) argv.push_back(word.data());
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
  int code = 0;
  // The bond of PR_SET_PDEATHSIG is to the thread that forks, and ours may end before the child.
  on_lasting_thread([&] {
    pid_ = ::fork();
    code = errno;
    if (pid_ == 0) exec_child(plan);
  });
  if (pid_ < 0) throw TemporaryError("cannot start ", shown(), ": ", std::strerror(code));
  failure.close_write_end();
  code = read_exec_failure(failure.read_end());
  if (code != 0) {
    collect(kGrace);
    const std::string message = str("cannot start ", shown(), ": ", std::strerror(code));
    if (code == ENOENT || code == ENOTDIR || code == EACCES) throw MissingInput(message);
    throw TemporaryError(message);
  }
  stdin_ = input.release_write_end();
  stdout_ = output.release_read_end();
  stderr_ = errors.release_read_end();
  started_ = steady_clock::now();
  answered_ = owes_ = false;
  to_send_.clear();
  received_.clear();
  errors_.clear();
}

/// Sends what is left to send and waits for a line.
ScorerProcess::Outcome ScorerProcess::flush_and_read(std::string& answer,
                                                     const Deadline& deadline) {
  for (;;) {
    pollfd wanted[] = {
        {stdout_, POLLIN, 0}, {stderr_, POLLIN, 0}, {to_send_.empty() ? -1 : stdin_, POLLOUT, 0}};
    ::poll(wanted, 3, kPollMs);
    if (wanted[1].revents != 0) read_stderr();
    if (wanted[2].revents != 0 && !write_some()) return Outcome::kEnded;
    if (wanted[0].revents != 0) {
      const bool open = read_some(stdout_, received_);
      const size_t end = received_.find('\n');
      if (end != std::string::npos) {
        answer = received_.substr(0, end);
        received_.erase(0, end + 1);
        return Outcome::kDone;
      }
      if (!open) return Outcome::kEnded;
      if (received_.size() > kLongestAnswer) {
        stop();
        throw DataError(shown(), " answers with a line of more than 1 MiB");
      }
    }
    if (deadline.passed()) return Outcome::kTimeout;
  }
}

/// @return false when nobody reads any more
bool ScorerProcess::write_some() {
  const ssize_t put = write_quietly(stdin_, to_send_);
  if (put < 0) return errno == EAGAIN || errno == EINTR;
  to_send_.erase(0, static_cast<size_t>(put));
  return true;
}

void ScorerProcess::read_stderr() {
  if (!read_some(stderr_, errors_)) ::close(std::exchange(stderr_, -1));
  if (errors_.size() > kErrorsKept) errors_.erase(0, errors_.size() - kErrorsKept);
}

/// Collects a program that has ended, or has closed its stdout or stdin, and says how it ended.
std::string ScorerProcess::end_report() {
  const int status = collect(kGrace);
  for (int pass = 0; pass < 64 && stderr_ >= 0; ++pass) read_stderr();
  close_all();
  std::string how = "ended";
  if (WIFEXITED(status)) how = str("ended with exit status ", WEXITSTATUS(status));
  if (WIFSIGNALED(status)) how = str("was ended by signal ", WTERMSIG(status));
  std::string_view errors = errors_;
  while (errors.ends_with('\n')) errors.remove_suffix(1);
  const size_t line = errors.rfind('\n');
  if (line != std::string_view::npos) errors.remove_prefix(line + 1);
  std::string report = str(shown(), " ", how, " without an answer");
  if (!errors.empty()) report += "; its last words: " + printable(errors, 300);
  return report;
}

void ScorerProcess::stop() {
  if (pid_ < 0) return;
  collect(milliseconds(0));
  close_all();
}

/// Waits for the program's end, kills its group, and leaves no zombie. @return its wait status
int ScorerProcess::collect(milliseconds patience) {
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
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) == 0)
    log::error(str("process ", pid_, " (", shown(), ") does not end"));
  pid_ = -1;
  return status;
}

void ScorerProcess::close_all() {
  for (int* fd : {&stdin_, &stdout_, &stderr_}) {
    if (*fd >= 0) ::close(std::exchange(*fd, -1));
  }
}

std::string ScorerProcess::shown() const {
  return str("\"", printable(join(command_, " "), 120), "\"");
}

}  // namespace praetor
