#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
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
/// prompts take the same way, but leave no record; their work goes first. Does no tensor
/// arithmetic. Not synchronised; the ledger is borrowed.
///
/// Prompts are one stream. Step s trains on the first `prompts_per_step` of them that are kept,
/// from where the batch of step s - 1 ended; a rejected one is replaced at the stream's end. While
/// the weights after s - 1 updates are the newest, so many prompts are issued that the kept ones
/// fill the steps s to s + max_staleness and no more: whatever is sampled now is then trained at
/// most max_staleness updates later.
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

  /// Prompts on their way into a step, with what the ledger has of their samples.
  struct Issue {
    int64_t from = 0, to = 0;  ///< ordinals
    std::vector<SampleState> samples;
    std::map<SampleId, RolloutRecord> rollouts;
    std::map<SampleId, ScoreRecord> scores;
  };
  /// A step on its way to be opened.
  struct Opening {
    int64_t step = 0;
    Publication weights;
    bool open = false;     ///< already
    bool goes_on = false;  ///< with what is in work for it and later steps
    int64_t first = 0;     ///< ordinal where its batch begins
    Issue fresh;
  };
  /// Begins step `step`, whose samples come from `weights`, or with max_staleness from older ones.
  /// What the ledger has of it already is taken over, and what is in work for it and later steps
  /// goes on; the rest becomes work. The step that is open already goes on.
  void open_step(int64_t step, const Publication& weights) { open(prepare(step, weights)); }
  /// The part of it that takes long: issues prompts. Changes the ledger alone: no lock is needed,
  /// but nothing may be opened, closed, recorded or committed until `open`.
  Opening prepare(int64_t step, const Publication& weights) const;
  /// @return what is over; to let go of it takes long
  std::shared_ptr<const void> open(Opening opening);
  /// Begins an evaluation of the first `count` held-out prompts.
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
  void check_holder(const Completion& completion) const;
  /// Like `record` it needs no lock, but nothing may be opened, closed or committed meanwhile.
  /// @throws InvalidArgument for a response whose versions cannot be
  Intake examine(Completion completion) const;
  /// Makes the results of `intakes` durable, in one commit. Touches the ledger alone.
  void record(std::vector<Intake>& intakes) const;
  void apply(Intake intake);
  /// The four of them.
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
  const ClosedBatch* close_step() { return is_complete() ? &closed() : nullptr; }
  /// Whether no work is left.
  bool is_complete();
  /// The batch of a step that is complete. Like `record` it needs no lock, nor does commit_step.
  const ClosedBatch& closed();
  /// Records the closed step in one commit: batch (with the learner's cut) and digests.
  StepOutcome commit_step(const std::string& learner_manifest, const StepRecord& record);
  /// Nothing while work is left.
  std::optional<EvaluationBatch> close_evaluation();

  const OnlinePlan& plan() const { return plan_; }
  int64_t rows() const { return order_.rows(); }
  bool training(int64_t step) const { return training_.step == step; }
  bool evaluating(int64_t step) const { return evaluation_ && evaluation_->step == step; }
  /// Of the weights that the next samples of the policy come from.
  const Publication& policy_weights() const { return training_.weights; }
  const Publication& weights() const {
    return evaluation_ ? evaluation_->weights : training_.weights;
  }
  int64_t leases_reissued() const { return leases_reissued_; }
  const std::vector<std::string>& set_aside() const { return set_aside_; }
  int64_t ready() const;  ///< samples for training that are scored, in no batch yet

  // The books of both kinds of work together.
  int64_t waiting(LeaseKind kind) const;  ///< samples
  int64_t held(LeaseKind kind) const;     ///< samples
  bool is_out(int64_t lease) const { return find(lease) != nullptr; }
  std::vector<int64_t> leases_of(const std::string& worker,
                                 std::optional<LeaseKind> kind = std::nullopt) const;
  /// Workers that hold a lease of a kind.
  int64_t holders(LeaseKind kind) const;
  /// Whose work the next lease of a kind is.
  Purpose next_purpose(LeaseKind kind) const {
    return evaluation_ && evaluation_->work.waiting(kind) > 0 ? Purpose::kEvaluation
                                                              : Purpose::kPolicy;
  }

 private:
  struct Pending {
    std::optional<RolloutRecord> rollout;
    std::optional<ScoreRecord> score;
    /// Why it is given up; recorded when the step commits, so that a crash before it decides anew.
    std::optional<std::string> drop_reason;
  };
  enum class Verdict : uint8_t { kOpen, kAccepted, kRejected };
  /// A prompt's samples.
  struct GroupState {
    int64_t unfinished = 0;  ///< neither scored nor dropped
    Verdict verdict = Verdict::kOpen;
  };
  /// What is open for one purpose.
  struct Work {
    Purpose purpose = Purpose::kPolicy;
    int64_t step = -1;
    Publication weights;
    mutable std::map<int64_t, Prompt> asked;  ///< prompts as they are asked
    std::map<SampleId, Pending> samples;
    std::map<int64_t, GroupState> groups;  ///< by ordinal
    int64_t unfinished = 0;                ///< samples
    WorkQueue work;
  };

  int64_t steps_ahead(int64_t step) const;
  int64_t lacking(int64_t step, int64_t first, int64_t end) const;
  void refill();
  Issue issue(int64_t from, int64_t count, const Publication& weights) const;
  void adopt(Issue fresh);
  void answer_from_data(int64_t from, int64_t to, int64_t version) const;
  void finish_one(Work& in, int64_t ordinal);
  void judge();
  void reject(int64_t ordinal, const std::string& why);
  bool too_stale(int64_t ordinal) const;
  std::vector<ScoredSample> kept_samples(int64_t ordinal) const;
  bool measured(const ScoredSample& sample) const {
    return sample.rollout.voice == plan_.measured_voice();
  }
  bool fills_batch();
  ClosedBatch make_batch(int64_t end) const;
  void tell_drops(const ClosedBatch& batch);
  void end_lease(int64_t id, bool died);
  void set_condemned_aside(Work& in);
  void want_score(Work& in, SampleId id);
  const Work* work_of(Purpose purpose) const;
  std::vector<const Work*> all_work() const;
  const WorkQueue::Held* find(int64_t lease) const;
  /// Samples of the weights may be part of what is open.
  bool is_known(const WeightVersion& version, Purpose purpose) const;
  GenerateItem generate_item(const Work& in, SampleId id) const;
  ScoreItem score_item(const Work& in, SampleId id) const;
  const Prompt& prompt_of(const Work& in, int64_t ordinal) const;
  int64_t end_of_step(int64_t step) const;
  int32_t stage() const { return static_cast<int32_t>(plan_.stage); }

  Ledger& ledger_;
  const OnlinePlan plan_;
  const std::vector<Prompt> prompts_;
  const std::vector<Prompt> held_out_;
  const Accept accept_;
  const RowOrder order_;

  mutable std::mutex asking_;  ///< Work::asked, which examine and lease look into at once
  Work training_;
  std::optional<Work> evaluation_;
  int64_t first_ordinal_ = 0;               ///< where the batch of the open step begins
  int64_t end_ordinal_ = 0;                 ///< of the prompts that are issued
  std::optional<int64_t> batch_end_;        ///< where the batch of the open step ends, once known
  std::set<int64_t> to_judge_;              ///< ordinals of groups that have just been finished
  std::map<int64_t, WeightVersion> known_;  ///< that samples of what is open may come from, by step
  std::set<std::string> told_;              ///< reasons of drops that were logged already
  std::optional<ClosedBatch> closed_;
  int64_t leases_reissued_ = 0;
  std::vector<std::string> set_aside_;
};

}  // namespace praetor
