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
  /// Publishes the policy after `step` updates unless it is, if the first rank says that it is
  /// `wanted`. Every rank calls it alike: where they keep weights in parts these are brought
  /// together unit by unit.
  void publish(int64_t step, bool wanted);
  /// The first rank's part: hands the parameters of one network to `take`, and has the others help.
  void visit(const Transformer& model, const Publisher::Take& take);
  bool in_parts() const { return learner_->in_parts(); }
  StepBatch collect(int64_t step);
  /// The workers' part.
  void work_here(bool may_interrupt, const std::function<void(const char* phase)>& begin_phase);
  /// What the voices beside the policy draw from after `step` updates.
  Publisher::Companion companion(int64_t step) const;
  Evaluation evaluation_of(int64_t step);
  /// The first rank's decision, on every rank.
  int64_t agree(int64_t decision);

  int64_t held_out_ = 0;
  Publication publication_{.version = {.step = -1}};
  MetricList publish_metrics_;
  std::unique_ptr<LocalRoles> local_;
  at::Device device_ = at::kCPU;                ///< the learner's
  std::shared_ptr<const void> engine_weights_;  ///< colocated: those that local_ reads
  std::chrono::steady_clock::time_point last_batch_ = std::chrono::steady_clock::now();
};

}  // namespace praetor
