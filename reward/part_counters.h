#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/data/sample.h"
#include "reward/reward_config.h"

namespace praetor {

/// What one part of a mixture did. seen = scored + errors + timeouts.
struct PartCounters {
  std::string name;
  bool gives_verdict = true;
  bool is_judge = true;  ///< a rule or a service: has a time limit, retries and a cache
  bool monitor = false;  ///< neither score nor constraints depend on it
  int64_t scored = 0;    ///< samples with a score, not applicable ones included
  int64_t errors = 0;    ///< samples it could not score, for any reason but time
  int64_t timeouts = 0;  ///< judges: samples that ran out of time
  int64_t passed = 0;    ///< where it gives verdicts: scored = passed + failed + not_applicable
  int64_t failed = 0;
  int64_t not_applicable = 0;
  int64_t retries = 0;          ///< attempts after the first
  int64_t cached = 0;           ///< samples answered from the cache
  double score_sum = 0.0;       ///< of the scored and applicable ones, before the weight
  double latency_ms_sum = 0.0;  ///< of all seen
  std::string first_error;      ///< message of the first error or timeout
  /// Sums over the scored samples of what a model of several numbers gave.
  std::vector<AttributeScore> attributes = {};
  void add(const PartScore& part);
  int64_t seen() const { return scored + errors + timeouts; }
};

/// Zeros for every part of a configuration, in the order of list_parts.
std::vector<PartCounters> empty_counters(const RewardConfig& config);

/// Adds the parts of a score to the counters of their names; a part that has none is left out.
void count_parts(std::span<const PartScore> parts, std::vector<PartCounters>& counters);

/// The counters under the names of the metrics list, in their order:
///   reward/<part>/mean, and reward/<part>/<attribute> where a part gives several numbers;
///   judge/<name>/{error,latency_ms}, with {pass,na} where it gives verdicts and
///   {timeout,cached,retries} for judges
/// pass is a fraction of the verdicts; retries are a number a sample; the others are fractions of
/// the samples seen. What has nothing to average is left out.
std::vector<std::pair<std::string, double>> part_metrics(std::span<const PartCounters> parts);

}  // namespace praetor
