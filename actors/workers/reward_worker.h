#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <utility>

#include "actors/controller/services.h"

namespace praetor {

class Scorer;

/// What scores the samples of a lease.
using ScorerOf = std::function<Scorer&(const Lease&)>;

/// Pulls scoring leases, scores them and hands the scores in. The controller is borrowed.
class RewardWorker {
 public:
  RewardWorker(WorkerService& controller, ScorerOf scorer_of, std::string name)
      : controller_(controller), scorer_of_(std::move(scorer_of)), name_(std::move(name)) {}

  /// Takes one lease of at most `max_items` samples, waiting for work that long, and works it off.
  /// False when there was none.
  bool work_once(int64_t max_items, std::chrono::milliseconds wait);

 private:
  WorkerService& controller_;
  ScorerOf scorer_of_;
  std::string name_;
  int64_t requests_ = 0;
};

}  // namespace praetor
