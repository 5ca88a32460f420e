#pragma once

#include <string>
#include <utility>

#include "actors/controller/protocol.h"

namespace praetor {

class Scorer;

/// Pulls scoring leases, scores them and hands the scores in. Controller and scorer are borrowed.
class RewardWorker {
 public:
  RewardWorker(ControllerService& controller, Scorer& scorer, std::string name)
      : controller_(controller), scorer_(scorer), name_(std::move(name)) {}

  /// Takes one lease of at most `max_items` samples and works it off. False when there was none.
  bool work_once(int64_t max_items);

 private:
  ControllerService& controller_;
  Scorer& scorer_;
  std::string name_;
};

}  // namespace praetor
