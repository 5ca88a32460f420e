#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/finding.h"
#include "core/ledger/records.h"

namespace praetor {

struct LedgerOptions {
  int64_t segment_bytes = int64_t{256}
                          << 20;  ///< a segment file is closed when it has grown beyond this, >= 1
};

/// What `Ledger::open` had to mend after a crash; all zero after an orderly end.
struct Recovery {
  int64_t lost_leases = 0;
  int64_t cut_bytes = 0;    ///< of the segments' tails that no committed row names
  int64_t cut_records = 0;  ///< whole records among them
};

/// What a batched `record_*` did. Ignored items are repetitions, or come too late for a sample that
/// was dropped.
struct Recorded {
  int64_t added = 0;
  int64_t ignored = 0;
};

/// The durable account of a run: every prompt, rollout, score, batch and step. RUN_DIR/ledger.db is
/// a SQLite file, RUN_DIR/rollouts/NNNNNN.seg hold the payload (core/ledger/segment.h).
///
/// One process owns it; a second one is refused. When a `record_*` returns, what it recorded
/// survives a power cut: the payload is synced before the row that names it commits. All methods
/// may be called from any thread. A failure leaves the ledger as it was before the call.
///
/// Errors of all methods: IoError when the disk is full or fails; InvalidArgument for a record that
/// is not sound or names a sample that was never issued; InternalError when the caller
/// breaks the order of things (a batch with a sample that was dropped, a step without a batch,
/// ...).
class Ledger {
 public:
  /// Opens or makes the ledger of a run directory (which is made when it is missing), as its owner.
  /// Leases left open are marked lost; a torn segment tail is cut.
  /// @throws TemporaryError when another process owns it; DataError when a file is damaged,
  /// foreign, or of a later version
  static std::unique_ptr<Ledger> open(const std::filesystem::path& run_dir,
                                      const LedgerOptions& options = {});
  /// For `status` and `verify` when no owner lives: nothing is changed, `record_*` throw
  /// InternalError.
  /// @throws MissingInput; TemporaryError when an owner lives: ask it instead
  static std::unique_ptr<Ledger> open_read_only(const std::filesystem::path& run_dir);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  const Recovery& recovery() const;

  /// Makes everything that `body` records one commit: all of it or, when it throws, nothing. Keep
  /// it short.
  void transaction(const std::function<void()>& body);

  /// Facts of the run (configuration digest, seed, library versions): a small table of texts.
  void set_fact(std::string_view key, std::string_view value);
  std::optional<std::string> fact(std::string_view key) const;

  // Stages.
  /// Opens a stage, or goes on with it. @throws ConfigError when the index was recorded under
  /// another name or form
  void begin_stage(int32_t stage, std::string_view name, StageForm form = StageForm::kOnline);
  void finish_stage(int32_t stage, std::string_view result);
  std::vector<StageRecord> stages() const;

  // Prompts. Ordinals follow on from `next_ordinal`.
  void issue_prompts(int32_t stage, std::span<const PromptRecord> prompts);
  int64_t next_ordinal(int32_t stage) const;
  std::optional<PromptRecord> last_prompt(int32_t stage) const;
  std::vector<PromptRecord> prompts(int32_t stage,
                                    int64_t from,
                                    int64_t to) const;  ///< ordinals [from, to)

  // Leases. They ride with the next commit: a crash may forget one, which is as good as losing it.
  /// Returns its id. `lease.id` and `lease.state` are not read.
  int64_t open_lease(const LeaseRecord& lease);
  /// Idempotent; an unknown id is ignored and gives false, as does a lease that is not open.
  bool close_lease(int64_t id, LeaseState state);
  std::vector<LeaseRecord> leases(LeaseState state) const;

  // Samples.
  Recorded record_rollouts(int32_t stage, std::span<const RolloutRecord> rollouts);
  Recorded record_scores(int32_t stage, std::span<const ScoreRecord> scores);
  /// A sample that is dropped already keeps its first reason.
  Recorded drop(int32_t stage, std::span<const SampleId> samples, std::string_view reason);
  /// The payload. Nothing when it was not recorded. @throws DataError when it is damaged, or was
  /// pruned
  std::optional<RolloutRecord> rollout(int32_t stage, SampleId id) const;
  std::optional<ScoreRecord> score(int32_t stage, SampleId id) const;
  /// Every issued sample of ordinals [from, to), in order.
  std::vector<SampleState> samples(int32_t stage, int64_t from, int64_t to) const;

  // Batches and steps; steps count from 1 in each stage.
  /// Steps follow on. A batch that is recorded already must be the same one and gives false.
  bool record_batch(int32_t stage, const BatchRecord& batch);
  std::optional<BatchRecord> batch(int32_t stage, int64_t step) const;
  int64_t last_batch(int32_t stage) const;  ///< 0 when there is none
  StepOutcome record_step(int32_t stage, const StepRecord& step);
  std::optional<StepRecord> step(int32_t stage, int64_t step) const;
  std::vector<StepRecord> steps(int32_t stage) const;
  int64_t last_step(int32_t stage)
      const;  ///< last finished step of the lineage (not the replayable ones), 0 when none

  /// Training goes on from the state after (stage, step): later steps of this stage and all steps
  /// of later stages become replayable, their batches stay and are to be trained again as they are;
  /// checkpoints beyond are durable no more.
  /// @throws CheckpointError when payload that the replay needs was pruned
  void rewind(int32_t stage, int64_t step);

  // Checkpoints. Write the row as not durable before the files, durable after the rename.
  void record_checkpoint(const CheckpointRecord& checkpoint);
  void forget_checkpoint(std::string_view path);
  std::vector<CheckpointRecord> checkpoints() const;  ///< in order of stage and step
  /// Deletes segments whose samples all were trained at or before (stage, step), or dropped, or
  /// belong to an earlier stage; rows stay. Returns the bytes given back. @throws InternalError
  /// when no durable checkpoint covers the step
  int64_t prune_payload(int32_t stage, int64_t step);

  Balance balance(int32_t stage) const;
  /// Everything that can be checked: the database, the account of every stage, each segment's
  /// checksums, and that every row's payload is there and its own. Empty when all is well.
  Findings verify() const;

 private:
  struct Impl;
  explicit Ledger(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace praetor
