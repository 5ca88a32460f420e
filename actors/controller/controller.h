#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "actors/controller/protocol.h"
#include "core/ledger/ledger.h"

namespace praetor {

/// One row of the prompt data, ready to be sent out.
struct Prompt {
  std::vector<int64_t> tokens;
  std::string text;             ///< as a reward worker sees it
  std::string metadata = "{}";  ///< the row's other fields
};

/// What one online stage asks of its workers.
struct OnlinePlan {
  uint32_t stage = 0;
  uint64_t job_seed = 0;
  int64_t prompts_per_step = 1;
  int32_t samples_per_prompt = 1;
  bool shuffle = true;
  SamplingParams params;
  std::chrono::milliseconds lease_time{std::chrono::minutes(10)};
};

/// A finished and scored response.
struct ScoredSample {
  RolloutRecord rollout;
  ScoreRecord score;
};

/// What a step trains on: samples in order, and how the ledger knows them.
struct StepBatch {
  int64_t step = 0;
  std::vector<ScoredSample> samples;
  int64_t first_ordinal = 0;  ///< prompts [first, end) were asked for this step
  int64_t end_ordinal = 0;
  bool replayed = false;  ///< recorded before; trained again from the record
  std::map<std::string, std::vector<SampleId>> dropped;  ///< by reason; recorded with the step
};

/// The samples of a recorded batch with their payload. @throws DataError when payload is damaged or
/// was pruned
StepBatch load_batch(const Ledger& ledger, int32_t stage, const BatchRecord& record);

/// The controller of one online stage: issues prompts in order, leases work out, takes results in,
/// closes batches by prompt ordinal. Every fact goes to the ledger before anybody acts on it, so
/// that a new controller over the same ledger goes on where this one ended. Does no tensor
/// arithmetic. Any thread; the ledger is borrowed.
class Controller final : public ControllerService {
 public:
  /// Nothing to keep a prompt's samples, else why they are dropped and another prompt is taken.
  using Accept = std::function<std::optional<std::string>(const std::vector<ScoredSample>&)>;

  /// @throws DataError when there is no prompt
  Controller(Ledger& ledger, OnlinePlan plan, std::vector<Prompt> prompts, Accept accept);

  /// Begins step `step`, whose samples come from the weights `weight_version`. What the ledger has
  /// of it already is taken over; the rest becomes work.
  void open_step(int64_t step, int64_t weight_version);

  std::optional<Lease> lease(const std::string& worker, LeaseKind kind, int64_t max_items) override;
  void complete(int64_t lease, std::vector<RolloutResult> results) override;
  void complete(int64_t lease, std::vector<ScoreResult> results) override;
  /// Gives the leases of a worker that died to others.
  void worker_lost(const std::string& worker);

  /// The batch once every sample of the step is scored; nothing while work is left (rejected groups
  /// have just become work for other prompts). @throws DataError when no sample could be scored,
  /// naming the parts that failed
  std::optional<StepBatch> close_step();

  /// Records the step in one commit: batch (with the learner's cut) and digests.
  StepOutcome commit_step(const StepBatch& batch,
                          const std::string& learner_manifest,
                          const StepRecord& record);

  int64_t leases_reissued() const { return leases_reissued_; }
  const Prompt& prompt_of(int64_t ordinal) const;

 private:
  struct OpenLease {
    std::string worker;
    LeaseKind kind = LeaseKind::kGenerate;
    std::vector<SampleId> items;
    std::chrono::steady_clock::time_point deadline;
  };
  struct Pending {
    std::optional<RolloutRecord> rollout;
    std::optional<ScoreRecord> score;
    bool dropped =
        false;  ///< decided; recorded when the step commits, so that a crash before it decides anew
  };

  void issue(int64_t count);
  void adopt(int64_t from, int64_t to);
  void expire_leases();
  void give_back(int64_t id, LeaseState state);
  void finish_items(int64_t id, const std::vector<SampleId>& done);
  int64_t row_of(int64_t ordinal) const;
  int64_t end_of_step(int64_t step) const;

  Ledger& ledger_;
  const OnlinePlan plan_;
  const std::vector<Prompt> prompts_;
  const Accept accept_;

  mutable std::mutex mutex_;
  int64_t step_ = 0;
  int64_t weight_version_ = 0;
  int64_t first_ordinal_ = 0, end_ordinal_ = 0;
  std::map<SampleId, Pending> samples_;     ///< of the open step
  std::vector<int64_t> accepted_, judged_;  ///< ordinals
  std::map<std::string, std::vector<SampleId>> dropped_;
  std::deque<SampleId> to_generate_, to_score_;
  std::map<int64_t, OpenLease> leases_;
  int64_t leases_reissued_ = 0;
  mutable std::map<int64_t, std::vector<int64_t>> orders_;  ///< epoch -> order of rows
};

}  // namespace praetor
