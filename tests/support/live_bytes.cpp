#include "tests/support/live_bytes.h"

#include <c10/core/Allocator.h>

#include <algorithm>

namespace praetor::testing {

/// Told by LibTorch's allocator, as its profiler is.
struct LiveBytes::Counter final : public c10::MemoryReportingInfoBase {
  void reportMemoryUsage(void* /*memory*/,
                         int64_t bytes,
                         size_t /*allocated*/,
                         size_t /*reserved*/,
                         c10::Device /*device*/) override {
    now += bytes;
    peak = std::max(peak, now);
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t now = 0, peak = 0;
};

struct LiveBytes::Guard {
  explicit Guard(const std::shared_ptr<Counter>& counter)
      : guard(c10::DebugInfoKind::PROFILER_STATE, counter) {}
  c10::DebugInfoGuard guard;
};

LiveBytes::LiveBytes()
    : counter_(std::make_shared<Counter>()), guard_(std::make_unique<Guard>(counter_)) {}
LiveBytes::~LiveBytes() = default;

int64_t LiveBytes::now() const {
  return counter_->now;
}

int64_t LiveBytes::peak() const {
  return counter_->peak;
}

void LiveBytes::restart() {
  counter_->peak = counter_->now;
}

}  // namespace praetor::testing
