#include "reward/parallel.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace praetor {

void for_each_index(size_t count, int threads, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next{0};
  const auto run = [&] {
    for (size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::jthread> helpers;
  const size_t wanted = std::min(count, static_cast<size_t>(threads));
  for (size_t i = 1; i < wanted; ++i) helpers.emplace_back(run);
  run();
}

}  // namespace praetor
