#pragma once

#include <memory>

#include "actors/rpc/tls.h"
#include "actors/train/stage_runner.h"
#include "actors/workers/reward_worker.h"
#include "actors/workers/rollout_worker.h"
#include "reward/scorer.h"
#include "rollout/engine.h"

namespace praetor {

/// The workers' part of an online stage within the learner's process: engine and judges over the
/// very weights that are trained (colocated). All arguments but `scorer_tls`,
/// for the user's scorers on other hosts, are borrowed; of an engine on a GPU `device` may be null:
/// it takes one of its own.
class LocalRoles {
 public:
  LocalRoles(WorkerService& controller,
             const Transformer& policy,
             const Transformer* companion,
             const Tokenizer& tokenizer,
             const StageConfig& stage,
             const std::filesystem::path& results,
             std::shared_ptr<const TlsIdentity> scorer_tls = nullptr,
             cuda::Device* device = nullptr);

  /// Works off what waits, rollouts first. `begin_phase` (may be empty) is told what begins.
  /// @throws Interrupted, when it may, once a signal asked for the end; what is finished is handed
  /// in then
  void work(bool may_interrupt, const std::function<void(const char* phase)>& begin_phase);

  /// An update is about to begin, which may want the GPU's memory: an engine there gives back its
  /// keys and values until it works again.
  void rest();

 private:
  WorkerService& controller_;
  bool on_gpu_;
  Engine engine_;
  std::unique_ptr<Scorer> scorer_;
  RolloutWorker rollout_;
  RewardWorker reward_;
};

}  // namespace praetor
