#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/data/sample.h"
#include "reward/reward_config.h"

namespace praetor {

/// What a part did since the last reset. seen = scored + errors + timeouts.
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
  int64_t seen() const { return scored + errors + timeouts; }
};

/// Scores responses with the parts of a configuration. Owned by one thread, which calls `score`;
/// judges run on a few threads of the scorer's, reward models on the caller's.
class Scorer {
 public:
  struct Options {
    int threads = 0;  ///< for judges; 0: the machine's cores, at most 4
  };
  /// Loads the models. `stage_result` gives the folder that an earlier stage of the job left; it
  /// throws for a name it does not know. @throws MissingInput, DataError "rewards part NAME: ..."
  /// is not added: messages name the folder
  static std::unique_ptr<Scorer> make(
      const RewardConfig& config,
      const std::function<std::filesystem::path(const std::string& stage)>& stage_result,
      Options options);
  static std::unique_ptr<Scorer> make(
      const RewardConfig& config,
      const std::function<std::filesystem::path(const std::string& stage)>& stage_result) {
    return make(config, stage_result, Options());
  }

  /// One Score a sample, in order; its parts in the configuration's order. A part that fails on a
  /// sample never yields a number: its PartScore has `error` and no score, and the sample's score
  /// is what `on_error` says. A sample whose prompt or response is not UTF-8 fails in every part.
  /// @throws DataError with on_error: fail, naming sample and part
  std::vector<Score> score(std::span<const Sample> samples);

  const std::vector<PartCounters>& counters() const { return counters_; }
  void reset_counters();
  /// The counters under the names of the metrics list, in the configuration's order:
  ///   reward/<part>/mean; judge/<name>/{error,latency_ms} and, for judges, {pass,na,timeout}
  /// pass is a fraction of the verdicts; na, error and timeout of the samples seen. What has
  /// nothing to average is left out.
  std::vector<std::pair<std::string, double>> metrics() const;

 private:
  struct Outcome;
  Scorer() = default;
  void run_judges(std::span<const Sample> samples,
                  std::vector<std::vector<Outcome>>& outcomes) const;
  void run_models(std::span<const Sample> samples,
                  std::vector<std::vector<Outcome>>& outcomes) const;
  void count(const std::vector<std::vector<Outcome>>& outcomes);
  Score combine(std::vector<Outcome>& parts, size_t sample) const;

  RewardConfig config_;
  int threads_ = 1;
  std::vector<std::unique_ptr<RewardModel>> models_;  ///< as config_.parts; empty for judges
  std::vector<PartCounters> counters_;
};

}  // namespace praetor
