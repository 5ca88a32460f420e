#include "actors/rpc/latency.h"

#include <algorithm>
#include <bit>

namespace praetor::rpc {

int LatencyHistogram::bucket_of(uint64_t microseconds) {
  if (microseconds < 8) return static_cast<int>(microseconds);
  const int power = std::bit_width(microseconds) - 1;  // >= 3
  const auto eighth = static_cast<int>((microseconds >> (power - 3)) & 7);
  return std::min(8 + (power - 3) * 8 + eighth, kBuckets - 1);
}

double LatencyHistogram::middle_of(int bucket) {
  if (bucket < 8) return bucket + 0.5;
  const int power = (bucket - 8) / 8 + 3;
  const int eighth = (bucket - 8) % 8;
  const double width = static_cast<double>(uint64_t{1} << (power - 3));
  return (8 + eighth + 0.5) * width;
}

void LatencyHistogram::record(std::chrono::steady_clock::duration took, bool failed) {
  const auto microseconds =
      std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::microseconds>(took).count());
  counts_[bucket_of(static_cast<uint64_t>(microseconds))].fetch_add(1, std::memory_order_relaxed);
  total_.fetch_add(microseconds, std::memory_order_relaxed);
  if (failed) failed_.fetch_add(1, std::memory_order_relaxed);
  int64_t seen = largest_.load(std::memory_order_relaxed);
  while (seen < microseconds &&
         !largest_.compare_exchange_weak(seen, microseconds, std::memory_order_relaxed)) {
  }
}

RpcLatency LatencyHistogram::summary() const {
  std::array<int64_t, kBuckets> counts;
  RpcLatency out;
  for (int i = 0; i < kBuckets; ++i) {
    counts[i] = counts_[i].load(std::memory_order_relaxed);
    out.count += counts[i];
  }
  out.failed = failed_.load(std::memory_order_relaxed);
  if (out.count == 0) return out;
  const auto quantile = [&](double share) {
    const auto rank = static_cast<int64_t>(share * static_cast<double>(out.count - 1));
    int64_t below = 0;
    for (int i = 0; i < kBuckets; ++i) {
      below += counts[i];
      if (below > rank) return middle_of(i) / 1000;
    }
    return middle_of(kBuckets - 1) / 1000;
  };
  out.mean_ms = static_cast<double>(total_.load(std::memory_order_relaxed)) / 1000 /
                static_cast<double>(out.count);
  out.p50_ms = quantile(0.5);
  out.p99_ms = quantile(0.99);
  out.max_ms = static_cast<double>(largest_.load(std::memory_order_relaxed)) / 1000;
  return out;
}

}  // namespace praetor::rpc
