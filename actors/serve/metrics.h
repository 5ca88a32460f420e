#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "actors/serve/engine_loop.h"

namespace praetor::serve {

/// What /metrics says, in Prometheus' text form. Any thread.
class Metrics {
 public:
  using Duration = std::chrono::steady_clock::duration;

  void answered(const std::string& endpoint, int status);
  void tokens(int64_t prompt, int64_t completion);
  void first_token(Duration after);
  void whole_answer(Duration after);
  std::string text(const EngineLoop::Stats& engine) const;

 private:
  struct Histogram {
    static constexpr std::array<double, 14> kBounds = {
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30, 120};  // seconds
    std::array<int64_t, kBounds.size() + 1> counts{};  ///< the last: beyond all bounds
    double sum = 0;
    void add(Duration took);
    std::string text(const std::string& name, const std::string& help) const;
  };

  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> answers_;
  int64_t prompt_tokens_ = 0;
  int64_t completion_tokens_ = 0;
  Histogram first_token_;
  Histogram whole_answer_;
};

}  // namespace praetor::serve
