#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/data/sample.h"
#include "reward/part_counters.h"
#include "reward/reward_config.h"

namespace praetor {

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

 private:
  Scorer() = default;
  void run_judges(std::span<const Sample> samples,
                  std::vector<std::vector<PartScore>>& outcomes) const;
  void run_models(std::span<const Sample> samples,
                  std::vector<std::vector<PartScore>>& outcomes) const;
  Score combine(std::vector<PartScore>& parts, size_t sample) const;

  RewardConfig config_;
  int threads_ = 1;
  std::vector<std::unique_ptr<RewardModel>> models_;  ///< as config_.parts; empty for judges
  std::vector<PartCounters> counters_;
};

}  // namespace praetor
