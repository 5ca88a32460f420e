#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "actors/train/evaluator.h"
#include "actors/train/local_roles.h"
#include "actors/train/publisher.h"
#include "actors/train/stage_runner.h"

namespace praetor {

/// Stages whose data the policy makes itself (ppo): the learner's part of them, and in a colocated
/// run the workers' part too.
class OnlineStage final : public StageRunner {
 public:
  OnlineStage(RunContext& context, const StageConfig& stage);

 protected:
  StepResult train_step(int64_t step) override;
  StepReport replay_step(int64_t step) override;
  MetricList evaluate(int64_t step) override;
  void write_result(const std::filesystem::path& folder) override;

 private:
  /// Brings together what `published(step)` reads, where ranks keep weights in parts and the first
  /// one says that it is `wanted`, and not published yet. Every rank calls it alike.
  std::shared_ptr<const void> gather_for_publication(int64_t step, bool wanted);
  /// The policy after `step` updates, where workers find it; published once.
  const Publication& published(int64_t step);
  StepBatch collect(int64_t step);
  /// What the voices beside the policy draw from after `step` updates.
  Publisher::Companion companion(int64_t step) const;
  Evaluation evaluation_of(int64_t step);
  /// The first rank's decision, on every rank.
  int64_t agree(int64_t decision);

  int64_t held_out_ = 0;
  Publication publication_{.version = {.step = -1}};
  MetricList publish_metrics_;
  std::unique_ptr<LocalRoles> local_;
  std::chrono::steady_clock::time_point last_batch_ = std::chrono::steady_clock::now();
};

}  // namespace praetor
