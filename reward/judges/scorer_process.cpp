#include "reward/judges/scorer_process.h"

#include <poll.h>
#include <sys/wait.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr size_t kLongestAnswer = size_t{1} << 20;
constexpr size_t kErrorsKept = 4096;
constexpr int kPollMs = 10;  // how often the deadline is asked
constexpr milliseconds kGrace{1000};

}  // namespace

ScorerProcess::ScorerProcess(std::vector<std::string> command, milliseconds start_timeout)
    : command_(std::move(command)), start_timeout_(start_timeout) {
  PRAETOR_CHECK(!command_.empty(), "a scorer has a command");
}

ScorerProcess::~ScorerProcess() {
  if (!child_) return;
  child_->close_input();
  child_->collect(kGrace);
}

std::string ScorerProcess::ask(const std::string& line, const Deadline& deadline) {
  for (bool again = false;; again = true) {
    deadline.check();
    if (child_ && owes_) {
      const Outcome outcome = settle_debt(deadline);
      if (outcome == Outcome::kTimeout) give_up(deadline);
      if (outcome == Outcome::kEnded) stop();  // over what it was asked before
    }
    if (!child_) start();
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
  child_ = std::make_unique<PipedChild>(command_);
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
    pollfd wanted[] = {{child_->output(), POLLIN, 0},
                       {child_->errors(), POLLIN, 0},
                       {to_send_.empty() ? -1 : child_->input(), POLLOUT, 0}};
    ::poll(wanted, 3, kPollMs);
    if (wanted[1].revents != 0) read_stderr();
    if (wanted[2].revents != 0 && !write_some()) return Outcome::kEnded;
    if (wanted[0].revents != 0) {
      const bool open = read_some(child_->output(), received_);
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
  const ssize_t put = write_quietly(child_->input(), to_send_);
  if (put < 0) return errno == EAGAIN || errno == EINTR;
  to_send_.erase(0, static_cast<size_t>(put));
  return true;
}

void ScorerProcess::read_stderr() {
  if (!read_some(child_->errors(), errors_)) child_->close_errors();
  if (errors_.size() > kErrorsKept) errors_.erase(0, errors_.size() - kErrorsKept);
}

/// Collects a program that has ended, or has closed its stdout or stdin, and says how it ended.
std::string ScorerProcess::end_report() {
  const int status = child_->collect(kGrace);
  for (int pass = 0; pass < 64 && child_->errors() >= 0; ++pass) read_stderr();
  child_.reset();
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
  child_.reset();
}

std::string ScorerProcess::shown() const {
  return str("\"", printable(join(command_, " "), 120), "\"");
}

}  // namespace praetor
