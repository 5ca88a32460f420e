#include "core/base/random.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "core/base/philox.h"
#include "core/base/sample_counter.h"

namespace praetor {

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  const PhiloxWords out =
      philox_words({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
  return {out.at[0], out.at[1], out.at[2], out.at[3]};
}

double uniform(const SampleKey& key, uint32_t position) {
  return unit_interval(philox_words(sample_counter(key, position),
                                    static_cast<uint32_t>(key.job_seed),
                                    static_cast<uint32_t>(key.job_seed >> 32)));
}

double RandomStream::uniform() {
  return praetor::uniform(key_, position_++);
}

uint64_t RandomStream::below(uint64_t bound) {
  PRAETOR_CHECK(bound >= 1, "empty range");
  return static_cast<uint64_t>(uniform() * static_cast<double>(bound));
}

double RandomStream::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

std::vector<int64_t> RandomStream::permutation(int64_t n) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[below(i)]);
  return order;
}

}  // namespace praetor
