#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/controller/services.h"
#include "actors/job/job_config.h"
#include "actors/train/checkpoint_saver.h"
#include "actors/train/checkpointing.h"
#include "actors/train/progress.h"
#include "actors/train/summary.h"
#include "core/checkpoint/checkpoint.h"
#include "core/collective/collective.h"
#include "core/metrics/metrics_writer.h"
#include "core/tokenizer/tokenizer.h"
#include "learners/learner.h"

namespace praetor::cuda {
class Device;
}

namespace praetor {

class Member;
class Publisher;

/// What every stage of a run shares; borrowed by the runners.
struct RunContext {
  const JobConfig& job;
  std::filesystem::path run_dir;
  LearnerService& run;
  WorkerService* workers;  ///< colocated: this process does the workers' part too; else null
  MetricsWriter* metrics;  ///< null: nothing is written (replay; all ranks but the first)
  Collective& ranks;       ///< of the learner group
  Publisher* publisher = nullptr;  ///< separate roles, rank 0: brings weights to the workers
  Member* member = nullptr;        ///< separate roles: this rank's membership
  cuda::Device* engine_device =
      nullptr;  ///< colocated: of engines on a GPU; null: one of their own
  bool leads() const { return ranks.rank() == 0; }
  Slice slice() const { return {ranks.rank(), ranks.world_size()}; }
  std::filesystem::path results() const { return run_dir / "stages"; }
};

/// Seconds of the parts of a step: time/rollout, time/score, ...
class StepTimer {
 public:
  /// Ends the part before and begins `name`.
  void begin(const std::string& name);
  void end();
  MetricList metrics() const;  ///< time/<part> in order, then time/step
  double seconds(const std::string& name) const;

 private:
  std::vector<std::pair<std::string, double>> parts_;
  std::string current_;
  std::chrono::steady_clock::time_point start_;
};

/// The loop of a training stage: restore, steps, evaluation, checkpoints, result. What a step is,
/// the two kinds say.
class StageRunner {
 public:
  static std::unique_ptr<StageRunner> make(RunContext& context, const StageConfig& stage);
  virtual ~StageRunner();

  /// Runs from the checkpoint (none: from the beginning) to the end and writes the stage's result.
  /// @throws Interrupted after saving a checkpoint
  void run(const std::optional<std::filesystem::path>& checkpoint);

  /// Trains recorded steps again, from the newest state at or before `step` - 1 up to `step`,
  /// writing nothing, and returns the digests of the last. @throws DataError when the step was
  /// never recorded
  StepReport replay(int64_t step, const std::optional<std::filesystem::path>& checkpoint);

  int64_t total_steps() const { return total_steps_; }

 protected:
  StageRunner(RunContext& context, const StageConfig& stage);

  /// What a step of training gave.
  struct StepResult {
    StepReport report;
    MetricList metrics;  ///< of the step, in the order they are written
    StepOutcome outcome = StepOutcome::kNew;
    std::string line;    ///< for the progress
    int64_t tokens = 0;  ///< of the sequences trained on, prompts included
  };
  /// Trains step `step` and records it. @throws Interrupted when it was stopped before the update
  virtual StepResult train_step(int64_t step) = 0;
  /// What `status` shows of this rank.
  void set_busy(bool busy) const;
  /// Trains a recorded step again without recording anything.
  virtual StepReport replay_step(int64_t step) = 0;
  /// eval/... metrics at the present weights.
  virtual MetricList evaluate(int64_t step) = 0;
  /// Every rank calls it alike; the first one writes.
  virtual void write_result(const std::filesystem::path& folder) = 0;
  /// save_hf of networks in training, with their adapters merged, unit by unit where the ranks keep
  /// them in parts. Every rank calls it alike.
  /// @param parameters  of `model`, and its scalar head where it has one
  void save_weights(const ModelConfig& config,
                    const Transformer& model,
                    const std::vector<NamedTensor>& parameters,
                    const std::filesystem::path& folder) const;
  /// The network a stage starts from: a new one, or a shell and the folder's weights.
  void open_policy(LearnerModels& models) const;
  /// With the adapter that the stage's section `model` names, if any.
  std::shared_ptr<const ModelWeights> with_adapter(std::shared_ptr<const ModelWeights> base) const;
  /// That of `model.create`.
  Transformer created_model() const;
  /// The id that ends a completion.
  int64_t end_token() const;
  std::filesystem::path resolve(const Source& source) const {
    return source.in(context_.results());
  }
  LearnerConfig learner_config() const;
  void set_total_steps(int64_t steps) { total_steps_ = steps; }
  /// Times that the run has gone back to a checkpoint.
  int64_t lineage() const { return lineage_; }

  RunContext& context_;
  const StageConfig& stage_;
  const Headline headline_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Learner> learner_;  ///< made by the derived constructor
  Progress* progress_ = nullptr;      ///< while run() runs
  StepTimer timer_;

 private:
  int64_t restore(const std::optional<std::filesystem::path>& checkpoint);
  void save(int64_t step, const MetricList& evaluation);
  /// The signal that asks for the end, the same on every rank; 0: none.
  int agreed_interrupt();
  void finish();
  /// On the first rank, when a checkpoint has become durable: links and retention.
  void retain();
  /// How the stage tells the best of its checkpoints; no metric when it does not.
  BestBy best_by() const;
  /// @throws ConfigError when evaluations do not have the metric that the best is told by
  void require_best_metric(const MetricList& evaluation) const;
  std::filesystem::path best_checkpoint();
  CheckpointContext checkpoint_context() const;

  CheckpointSaver saver_;
  int64_t total_steps_ = 0;
  int64_t saved_step_ = -1;
  int64_t lineage_ = 0;
};

}  // namespace praetor
