#include "actors/train/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace praetor {

namespace {

std::atomic<int> requested_signal{0};

void handle(int number) {
  if (requested_signal.exchange(number) != 0) ::_exit(128 + number);
  static constexpr char kNotice[] =
      "\ninterrupted: saving a checkpoint at the next step; once more to leave at once\n";
  // write is safe in a handler; its result changes nothing.
  [[maybe_unused]] const ssize_t put = ::write(STDERR_FILENO, kNotice, sizeof(kNotice) - 1);
}

void install(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  requested_signal = 0;
  install(handle);
}

InterruptGuard::~InterruptGuard() {
  install(SIG_DFL);
}

int InterruptGuard::requested() {
  return requested_signal.load();
}

}  // namespace praetor
