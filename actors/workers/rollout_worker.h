#pragma once

#include <string>

#include "actors/controller/protocol.h"
#include "core/model/generator.h"

namespace praetor {

/// Pulls generation leases and hands results in as they finish. Controller and generator are
/// borrowed.
class RolloutWorker {
 public:
  RolloutWorker(ControllerService& controller, Generator& generator, std::string name)
      : controller_(controller), generator_(generator), name_(std::move(name)) {}

  /// Takes one lease of at most `max_items` samples and works it off. False when there was none.
  /// `stop` is asked after each finished sample; when it says true what is finished is handed in
  /// and the rest dropped.
  bool work_once(int64_t max_items, bool (*stop)() = nullptr);

 private:
  ControllerService& controller_;
  Generator& generator_;
  std::string name_;
};

}  // namespace praetor
