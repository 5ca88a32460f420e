#include "actors/train/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace praetor {

namespace {

std::atomic<int> requested_signal{0};

std::string_view first_notice;

void handle(int number) {
  if (number == SIGUSR1) {
    // Several may come, as one signal is passed on by a whole group.
    int none = 0;
    requested_signal.compare_exchange_strong(none, SIGTERM);
    return;
  }
  if (requested_signal.exchange(number) != 0) ::_exit(128 + number);
  // write is safe in a handler; its result changes nothing.
  [[maybe_unused]] const ssize_t put =
      ::write(STDERR_FILENO, first_notice.data(), first_notice.size());
}

void install(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGUSR1, &action, nullptr);
}

}  // namespace

InterruptGuard::InterruptGuard(std::string_view notice) {
  first_notice = notice;
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
