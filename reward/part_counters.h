#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/data/sample.h"

namespace praetor {

/// What one part of a mixture did. seen = scored + errors + timeouts.
struct PartCounters {
  std::string name;
  bool is_judge = true;
  int64_t scored = 0;    ///< samples with a score, not applicable ones included
  int64_t errors = 0;    ///< samples it could not score, for any reason but time
  int64_t timeouts = 0;  ///< judges: samples that ran out of time
  int64_t passed = 0;    ///< judges: scored = passed + failed + not_applicable
  int64_t failed = 0;
  int64_t not_applicable = 0;
  double score_sum = 0.0;       ///< of the scored and applicable ones, before the weight
  double latency_ms_sum = 0.0;  ///< of all seen
  std::string first_error;      ///< message of the first error or timeout
  void add(const PartScore& part);
  int64_t seen() const { return scored + errors + timeouts; }
};

/// The counters under the names of the metrics list, in their order:
///   reward/<part>/mean; judge/<name>/{error,latency_ms} and, for judges, {pass,na,timeout}
/// pass is a fraction of the verdicts; na, error and timeout of the samples seen. What has nothing
/// to average is left out.
std::vector<std::pair<std::string, double>> part_metrics(std::span<const PartCounters> parts);

}  // namespace praetor
