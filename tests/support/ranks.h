#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/collective/collective.h"

namespace praetor::testing {

/// Runs `work` for every rank of `group`, each on a thread of its own, and returns what each threw
/// ("" for nothing). Assertions belong after it, on the test's own thread.
inline std::vector<std::string> run_ranks(const std::vector<std::unique_ptr<Collective>>& group,
                                          const std::function<void(Collective&)>& work) {
  std::vector<std::string> errors(group.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < group.size(); ++r) {
    threads.emplace_back([&, r] {
      try {
        work(*group[r]);
      } catch (const std::exception& error) {
        errors[r] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

/// The same in a fresh group of threads.
inline std::vector<std::string> run_ranks(int32_t world_size,
                                          const std::function<void(Collective&)>& work,
                                          CollectiveOptions options = {
                                              .deadline = std::chrono::seconds(60)}) {
  return run_ranks(make_thread_group(world_size, options), work);
}

}  // namespace praetor::testing
