#pragma once

#include <memory>

#include "actors/controller/controller.h"
#include "actors/train/stage_runner.h"
#include "actors/workers/reward_worker.h"
#include "actors/workers/rollout_worker.h"
#include "reward/scorer.h"
#include "rollout/engine.h"

namespace praetor {

/// Stages that learn from their own samples (ppo), colocated: controller, engine, scorer and
/// learner in this process. The engine reads the learner's very weights, so publication is a new
/// version number. The workers pull leases as separate processes would.
class OnlineStage final : public StageRunner {
 public:
  OnlineStage(RunContext& context, const StageConfig& stage);

 protected:
  StepResult train_step(int64_t step) override;
  StepReport replay_step(int64_t step) override;
  MetricList evaluate(int64_t step) override;
  void write_result(const std::filesystem::path& folder) override;

 private:
  std::vector<Prompt> read_prompts(const Source& source) const;
  /// Runs the workers until the step's batch is whole. @throws Interrupted
  StepBatch collect(int64_t step);
  void add_batch_metrics(const StepBatch& batch, MetricList& metrics) const;

  std::vector<Prompt> eval_prompts_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Scorer> scorer_;
  std::unique_ptr<Controller> controller_;
  std::unique_ptr<RolloutWorker> rollout_worker_;
  std::unique_ptr<RewardWorker> reward_worker_;
  OnlinePlan plan_;
  int64_t rows_ = 0;  ///< of the prompt data
};

}  // namespace praetor
