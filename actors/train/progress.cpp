#include "actors/train/progress.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <utility>

#include "core/base/log.h"
#include "core/base/str.h"

namespace praetor {

std::string duration_text(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  const int64_t hours = whole / 3600, minutes = whole / 60 % 60, rest = whole % 60;
  char text[48];
  if (hours > 0) {
    std::snprintf(text,
                  sizeof(text),
                  "%ld h %02ld min",
                  static_cast<long>(hours),
                  static_cast<long>(minutes));
  } else if (minutes > 0) {
    std::snprintf(
        text, sizeof(text), "%ld min %02ld s", static_cast<long>(minutes), static_cast<long>(rest));
  } else {
    std::snprintf(text, sizeof(text), "%ld s", static_cast<long>(rest));
  }
  return text;
}

Progress::Progress(std::string stage, int64_t total_steps, int64_t resumed)
    : stage_(std::move(stage)),
      total_(total_steps),
      first_(resumed),
      terminal_(::isatty(STDERR_FILENO) == 1) {}

std::string Progress::eta(int64_t step) const {
  if (step <= first_) return "";
  const double spent =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  return ", " +
         duration_text(spent / static_cast<double>(step - first_) *
                       static_cast<double>(total_ - step)) +
         " left";
}

void Progress::clear() {
  if (drawn_) std::fputs("\r\033[K", stderr);
  drawn_ = false;
}

void Progress::phase(int64_t step, const std::string& what) {
  if (!terminal_) return;
  clear();
  std::fprintf(stderr,
               "%s %ld/%ld: %s%s",
               stage_.c_str(),
               static_cast<long>(step),
               static_cast<long>(total_),
               what.c_str(),
               eta(step - 1).c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::step_done(int64_t step, const std::string& text) {
  clear();
  log::info(str(stage_, " ", step, "/", total_, "  ", text, eta(step)));
}

void Progress::say(const std::string& text) {
  clear();
  log::info(text);
}

}  // namespace praetor
