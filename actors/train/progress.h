#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace praetor {

/// What a person sees of a running job, on stderr: one line a step and, on a terminal, a line that
/// is drawn over with the part of the step that runs now and the time left.
class Progress {
 public:
  /// `resumed`: steps that were done before this process; they do not count for the time left.
  Progress(std::string stage, int64_t total_steps, int64_t resumed);

  /// The part of the step that begins: "rollout", "score", "update", "evaluate". Drawn on a
  /// terminal only.
  void phase(int64_t step, const std::string& what);
  /// The line of a finished step: `text` with the step's figures.
  void step_done(int64_t step, const std::string& text);
  /// A line of its own at any time.
  void say(const std::string& text);

 private:
  std::string eta(int64_t step) const;
  void clear();

  std::string stage_;
  int64_t total_, first_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  bool terminal_;
  bool drawn_ = false;
};

/// "1 h 02 min", "3 min 05 s", "12 s"
std::string duration_text(double seconds);

}  // namespace praetor
