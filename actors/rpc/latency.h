#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "actors/rpc/server.h"

namespace praetor::rpc {

/// Durations in buckets an eighth of their value wide. Any thread; recording takes no lock.
class LatencyHistogram {
 public:
  void record(std::chrono::steady_clock::duration took, bool failed);
  RpcLatency summary() const;

 private:
  // 8 exact ones, then 8 for each power of two up to 2^40 microseconds (12 days).
  static constexpr int kBuckets = 8 + 8 * 37;
  static int bucket_of(uint64_t microseconds);
  static double middle_of(int bucket);  ///< in microseconds

  std::array<std::atomic<int64_t>, kBuckets> counts_{};
  std::atomic<int64_t> failed_{0};
  std::atomic<int64_t> total_{0};  ///< microseconds
  std::atomic<int64_t> largest_{0};
};

}  // namespace praetor::rpc
