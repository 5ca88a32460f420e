#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <utility>

#include "actors/controller/services.h"
#include "core/model/generator.h"

namespace praetor {

/// What generates the samples of a lease, with the lease's weights applied.
using GeneratorOf = std::function<Generator&(const Lease&)>;

/// Pulls generation leases and hands results in as they finish. The controller is borrowed.
class RolloutWorker {
 public:
  struct Options {
    std::string name;
    /// Results are handed in by a thread of their own, as soon as the ones before are durable; else
    /// by the caller, a few at a time.
    bool stream = false;
  };
  RolloutWorker(WorkerService& controller, GeneratorOf generator_of, Options options)
      : controller_(controller),
        generator_of_(std::move(generator_of)),
        options_(std::move(options)) {}

  /// Takes one lease of at most `max_items` samples, waiting for work that long, and works it off.
  /// False when there was none. `stop` is asked after each finished sample; when it says true what
  /// is finished is handed in and the rest dropped.
  bool work_once(int64_t max_items,
                 std::chrono::milliseconds wait,
                 const std::function<bool()>& stop = nullptr);

 private:
  WorkerService& controller_;
  GeneratorOf generator_of_;
  Options options_;
  int64_t requests_ = 0;
};

}  // namespace praetor
