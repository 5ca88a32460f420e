#include "core/base/exec_child.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace praetor {

namespace {

[[noreturn]] void fail(const ChildPlan& plan) {
  const int code = errno;
  [[maybe_unused]] const ssize_t put = ::write(plan.failure, &code, sizeof(code));
  ::_exit(127);
}

void default_signals() {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) ::sigaction(number, &action, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

void close_others_on_exec() {
  if (::syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) == 0) return;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const int end = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 65536));
  for (int fd = STDERR_FILENO + 1; fd < end; ++fd) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
}

}  // namespace

void exec_child(const ChildPlan& plan) {
  ::setpgid(0, 0);
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail(plan);
  if (::getppid() != plan.parent) ::_exit(127);  // it died before the call above
  default_signals();
  if (::dup2(plan.input, STDIN_FILENO) < 0) fail(plan);
  if (plan.output < 0) {
    ::dup2(STDERR_FILENO, STDOUT_FILENO);  // fails when our own stderr is closed: then so be it
  } else if (::dup2(plan.output, STDOUT_FILENO) < 0) {
    fail(plan);
  }
  if (plan.errors >= 0 && ::dup2(plan.errors, STDERR_FILENO) < 0) fail(plan);
  close_others_on_exec();
  for (int i = 0; i < plan.handed_on_count; ++i) {
    if (::fcntl(plan.handed_on[i], F_SETFD, 0) != 0) fail(plan);
  }
  if (plan.environment != nullptr) {
    ::execve(plan.program, plan.argv, plan.environment);
  } else {
    ::execvp(plan.program, plan.argv);  // glibc's looks PATH through without allocating
  }
  fail(plan);
}

int read_exec_failure(int fd) {
  int code = 0;
  ssize_t got = 0;
  do {
    got = ::read(fd, &code, sizeof(code));
  } while (got < 0 && errno == EINTR);
  return got == sizeof(code) ? code : 0;
}

}  // namespace praetor
