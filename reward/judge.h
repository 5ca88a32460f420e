#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "core/base/deadline.h"
#include "core/data/sample.h"

namespace praetor {

/// What one judge says of one response.
struct Verdict {
  double score = 0.0;
  std::optional<bool> passed;   ///< absent exactly when `not_applicable`
  std::string reason;           ///< for people: what was found, what was wanted
  bool not_applicable = false;  ///< the sample lacks what the judge needs, and the configuration
                                ///< says to let that pass; score 0
};

/// A rule that scores a response from its text and metadata alone: the same sample gives the same
/// verdict, on any machine and thread, except that a slow one may run out of time. Immutable;
/// `judge` may be called from any thread.
class Judge {
 public:
  virtual ~Judge() = default;
  /// Work whose length depends on the sample asks `deadline` now and then; it is the only way to
  /// end a judge.
  /// @throws TimeoutError; another praetor::Error for a sample that cannot be judged (no such
  /// metadata field, ...). Either is counted and named by the scorer. A judge never answers 0 for
  /// "I could not tell".
  virtual Verdict judge(const Sample& sample, const Deadline& deadline) const = 0;
  /// How long one sample may take where the part does not say; absent: the section's `timeout_ms`.
  virtual std::optional<std::chrono::milliseconds> usual_timeout() const { return std::nullopt; }
};

}  // namespace praetor
