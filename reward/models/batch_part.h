#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/data/sample.h"

namespace praetor {

/// A sample and the other responses it is to be compared with; both borrowed.
struct BatchItem {
  const Sample* sample = nullptr;
  std::span<const Rival> rivals;
};

struct BatchResult {
  std::optional<double> score;  ///< absent exactly when `error` is set
  std::optional<bool> verdict;  ///< absent too where the part gives none, or does not apply
  std::string reason;
  std::string error;
  bool not_applicable = false;
  std::vector<Preference> preferences;
  std::vector<AttributeScore> attributes;
};

/// A part of a mixture that scores whole batches by a network, on the caller's thread. What it says
/// of a sample does not depend on the batch. One thread at a time.
class BatchPart {
 public:
  virtual ~BatchPart() = default;
  /// One result an item, in order. Texts are UTF-8, but for those of rivals.
  virtual std::vector<BatchResult> score(std::span<const BatchItem> items) const = 0;
};

}  // namespace praetor
