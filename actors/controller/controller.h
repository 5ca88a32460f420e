#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "actors/controller/prompts.h"
#include "actors/controller/services.h"
#include "actors/controller/work_queue.h"
#include "core/data/row_order.h"
#include "core/ledger/ledger.h"
#include "reward/part_counters.h"

namespace praetor {

/// The batch of a step once every sample of it is scored.
struct ClosedBatch {
  int64_t step = 0;
  std::vector<ScoredSample> samples;
  int64_t first_ordinal = 0;  ///< prompts [first, end) were asked for this step
  int64_t end_ordinal = 0;
  bool replayed = false;  ///< recorded before; trained again from the record
  std::map<std::string, std::vector<SampleId>> dropped;  ///< by reason; recorded with the step
  std::vector<PartCounters> parts;
  int32_t measured_voice = 0;

  /// @param rows  of the prompt data
  StepBatch slice(Slice slice, int64_t rows) const;
};

/// The samples of a recorded batch with their payload. @throws DataError when payload is damaged or
/// was pruned
ClosedBatch load_batch(const Ledger& ledger, const OnlinePlan& plan, const BatchRecord& record);

/// The controller of one online stage: issues prompts in order, leases work out, takes results in,
/// closes batches by prompt ordinal. Every fact goes to the ledger before anybody acts on it, so
/// that a new controller over the same ledger goes on where this one ended. Evaluations of held-out
/// prompts take the same way, but leave no record. Does no tensor arithmetic. Not synchronised; the
/// ledger is borrowed.
class Controller {
 public:
  /// Nothing to keep a prompt's samples, else why they are dropped and another prompt is taken.
  using Accept = std::function<std::optional<std::string>(const std::vector<ScoredSample>&)>;

  /// @throws DataError when there is no prompt
  Controller(Ledger& ledger,
             OnlinePlan plan,
             std::vector<Prompt> prompts,
             std::vector<Prompt> held_out,
             Accept accept);

  /// Begins step `step`, whose samples come from `weights`. What the ledger has of it already is
  /// taken over; the rest becomes work. The step that is open already goes on.
  void open_step(int64_t step, const Publication& weights);
  /// Begins an evaluation of the first `count` held-out prompts; the step in work waits.
  void open_evaluation(int64_t step, int64_t count, const Publication& weights);

  /// Up to `max_items` items, or nothing when no work of this kind waits.
  std::optional<Lease> lease(const std::string& worker, LeaseKind kind, int64_t max_items);

  /// Results on their way in: what of a completion is new.
  struct Intake {
    int64_t lease = 0;
    Purpose purpose = Purpose::kPolicy;
    std::vector<SampleId> done;  ///< new or not
    std::vector<RolloutRecord> rollouts;
    std::vector<ScoreRecord> scores;
  };
  /// @throws RefusedError for a lease that another worker holds
  Intake examine(Completion completion) const;
  /// Makes the results of `intakes` durable, in one commit. Touches the ledger alone: no
  /// lock is needed, but nothing may be opened, closed or committed meanwhile.
  void record(std::vector<Intake>& intakes) const;
  void apply(Intake intake);
  /// The three of them.
  void complete(Completion completion);

  /// Gives the leases of a worker to others. `died`: it did not leave by itself.
  void worker_lost(const std::string& worker, bool died);
  /// Gives a lease whose holder has nothing of it to others.
  void give_back(int64_t lease) { end_lease(lease, false); }
  /// Gives leases that ran out of time to others.
  void expire_leases();

  /// The batch once every sample of the step is scored; null while work is left (rejected groups
  /// have just become work for other prompts). @throws DataError when no sample could be scored,
  /// naming the parts that failed
  const ClosedBatch* close_step();
  /// Records the closed step in one commit: batch (with the learner's cut) and digests.
  StepOutcome commit_step(const std::string& learner_manifest, const StepRecord& record);
  /// Nothing while work is left.
  std::optional<EvaluationBatch> close_evaluation();

  const OnlinePlan& plan() const { return plan_; }
  int64_t rows() const { return order_.rows(); }
  int64_t step() const { return step_; }
  Purpose purpose() const { return purpose_; }
  const Publication& weights() const { return weights_; }
  bool has_closed() const { return closed_.has_value(); }
  int64_t leases_reissued() const { return leases_reissued_; }
  const std::vector<std::string>& set_aside() const { return set_aside_; }
  const WorkQueue& work() const { return work_; }
  int64_t ready() const;  ///< samples of the open step that are scored

 private:
  struct Pending {
    std::optional<RolloutRecord> rollout;
    std::optional<ScoreRecord> score;
    bool dropped =
        false;  ///< decided; recorded when the step commits, so that a crash before it decides anew
  };

  void begin(Purpose purpose, int64_t step, const Publication& weights);
  void issue(int64_t count);
  void adopt(int64_t from, int64_t to);
  void end_lease(int64_t id, bool died);
  void set_condemned_aside();
  void want_score(SampleId id);
  void answer_from_data(int64_t from, int64_t to);
  GenerateItem generate_item(SampleId id) const;
  ScoreItem score_item(SampleId id) const;
  const Prompt& prompt_of(int64_t ordinal) const;
  const Prompt& plain_prompt(int64_t ordinal) const;
  int64_t end_of_step(int64_t step) const;
  int32_t stage() const { return static_cast<int32_t>(plan_.stage); }

  Ledger& ledger_;
  const OnlinePlan plan_;
  const std::vector<Prompt> prompts_;
  const std::vector<Prompt> held_out_;
  const Accept accept_;
  const RowOrder order_;

  Purpose purpose_ = Purpose::kPolicy;  ///< of what is open
  int64_t step_ = -1;
  Publication weights_;
  int64_t first_ordinal_ = 0, end_ordinal_ = 0;
  mutable std::map<int64_t, Prompt> asked_;  ///< prompts of what is open, as they are asked
  std::map<SampleId, Pending> samples_;      ///< of the open step or evaluation
  int64_t unfinished_ = 0;                   ///< of them, neither scored nor dropped
  std::vector<int64_t> accepted_, judged_;   ///< ordinals
  std::map<std::string, std::vector<SampleId>> dropped_;
  std::set<std::string> told_;  ///< reasons of drops that were logged already
  std::optional<ClosedBatch> closed_;
  WorkQueue work_;
  int64_t leases_reissued_ = 0;
  std::vector<std::string> set_aside_;
};

}  // namespace praetor
