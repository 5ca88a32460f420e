#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "actors/controller/services.h"
#include "actors/train/checkpointing.h"
#include "core/checkpoint/checkpoint.h"
#include "core/collective/collective.h"
#include "learners/learner.h"

namespace praetor {

/// Saves a stage's learner as RUN_DIR/checkpoints/STAGE/step-N, a shard a rank (of the first copy,
/// where groups of ranks keep copies), all ranks at the same time, in the order that leaves a crash
/// with the last whole one: ledger row, shards, manifest, rename, ledger row "durable".
///
/// In the background a rank copies its part of the state, which is kept for the next save, and a
/// thread writes the copy while training goes on; one save at a time. The thread writes the shard
/// and nothing else: what the ranks agree on, the ledger and the rename happen on the ranks' own
/// threads, in `poll` and `finish`.
///
/// Every rank makes every call alike.
class CheckpointSaver {
 public:
  struct Options {
    bool background = false;
    /// On the first rank, once the checkpoint of `step` is durable.
    std::function<void(int64_t step)> on_durable = nullptr;
  };
  /// `run` and `ranks` are borrowed.
  CheckpointSaver(LearnerService& run, Collective& ranks, Options options);
  /// What is under way is given up.
  ~CheckpointSaver();
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  /// Begins to save the learner, after the end of the save before; in the foreground it ends, too.
  /// @param metrics  what retention may rank by
  /// @throws IoError when any rank could not write, now or in the save before, on every rank
  void save(const CheckpointContext& context,
            const Learner& learner,
            int64_t step,
            const std::map<std::string, double>& metrics);
  /// Ends the save under way if all ranks have written. @throws as save
  void poll();
  /// Waits for the save under way, and ends it. @throws as save
  void finish();

 private:
  void write(const std::string& folder, const std::vector<NamedTensor>& tensors);
  const std::vector<NamedTensor>& staged(const std::vector<NamedTensor>& tensors);
  void conclude();

  LearnerService& run_;
  Collective& ranks_;
  Options options_;
  bool under_way_ = false;
  int32_t shards_ = 1;                        ///< of the save under way
  std::unique_ptr<CheckpointWriter> writer_;  ///< of the save under way, on the first rank
  CheckpointRecord record_;                   ///< the same
  std::vector<NamedTensor> staging_;
  std::thread thread_;
  std::atomic<bool> written_ = false;
  CheckpointFile shard_;  ///< what this rank has written, or
  std::exception_ptr failure_;
};

}  // namespace praetor
