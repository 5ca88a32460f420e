#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/data/sample.h"
#include "reward/models/batch_part.h"
#include "reward/part_counters.h"
#include "reward/reward_config.h"
#include "reward/verdict_cache.h"

namespace praetor {

/// Scores responses with the parts of a configuration. Owned by one thread, which calls `score`;
/// judges and calls of services run on a few threads of the scorer's, models on the caller's.
class Scorer {
 public:
  struct Options {
    int threads = 0;  ///< for judges and calls of services; 0: the machine's cores, at most 4
    /// How messages call the i-th sample of a call; empty: "sample i".
    std::function<std::string(size_t sample)> name_of;
    ConnectScorer connect;  ///< for parts with an address; needed where there are any
  };
  /// Loads the models. @throws MissingInput, DataError; messages name the folder
  static std::unique_ptr<Scorer> make(const RewardConfig& config,
                                      const StageResults& stage_result,
                                      Options options);
  static std::unique_ptr<Scorer> make(const RewardConfig& config,
                                      const StageResults& stage_result) {
    return make(config, stage_result, Options());
  }

  /// One Score a sample, in order; its parts are those of its task in the order of list_parts. A
  /// part that fails on a sample never yields a number: its PartScore has `error` and no score, and
  /// the sample's score is what `on_error` says. A sample whose prompt or response is not UTF-8
  /// fails in every part.
  /// @param rivals  what a preference part compares each sample with; empty: nothing, for any
  /// @throws DataError with on_error: fail, naming sample and part; for a task that is not known
  std::vector<Score> score(std::span<const Sample> samples,
                           std::span<const std::vector<Rival>> rivals = {});

  const std::vector<PartCounters>& counters() const { return counters_; }
  void reset_counters() { counters_ = empty_counters(config_); }

 private:
  /// Of one sample.
  struct Outcome {
    std::optional<size_t> task;
    std::vector<PartScore> parts;  ///< as `parts_`; those of other tasks are not used
    std::vector<Preference> preferences;
  };
  Scorer(const RewardConfig& config, Options options);
  bool applies(size_t part, const Outcome& outcome) const {
    return !parts_[part].task || parts_[part].task == outcome.task;
  }
  std::string name_of(size_t sample) const;
  void run_judges(std::span<const Sample> samples, std::vector<Outcome>& outcomes);
  void run_judge(size_t part, const Sample& sample, PartScore& out);
  void run_services(std::span<const Sample> samples, std::vector<Outcome>& outcomes);
  void run_models(std::span<const Sample> samples,
                  std::span<const std::vector<Rival>> rivals,
                  std::vector<Outcome>& outcomes) const;
  void run_trees(Outcome& outcome) const;
  Score combine(Outcome& outcome, size_t sample) const;

  const RewardConfig config_;
  const Options options_;
  const std::vector<ListedPart> parts_;
  int threads_ = 1;
  std::vector<std::unique_ptr<BatchPart>> models_;          ///< as parts_; empty for others
  std::vector<std::unique_ptr<ExternalService>> services_;  ///< likewise
  VerdictCache cache_;
  std::vector<PartCounters> counters_;
};

}  // namespace praetor
