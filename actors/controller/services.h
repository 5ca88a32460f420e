#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/data/sample.h"
#include "core/ledger/records.h"
#include "core/model/generator.h"

namespace praetor {

/// What passes between the controller and the other roles. Plain values: the colocated run hands
/// them over in one process, separate roles send the same over the wire (proto/praetor/v1).

/// A peer that may not do what it asked for: no secret, a wrong one, another run's, somebody else's
/// lease.
class RefusedError : public Error {
 public:
  template <typename... Args>
  explicit RefusedError(const Args&... args)
      : Error(ErrorCode::kPermissionDenied, kExitRefused, str(args...)) {}
};

/// Names the weights of the policy of a stage.
struct WeightVersion {
  uint32_t stage = 0;   ///< index in the job
  int64_t lineage = 0;  ///< times that training went back to a checkpoint before these weights
  int64_t step = 0;     ///< updates they have seen
  std::string
      digest;  ///< of names, shapes and bytes, hex; empty where nothing is copied (colocated)
  /// The same weights; the lineage alone does not tell them apart.
  bool same_weights(const WeightVersion& other) const {
    return stage == other.stage && step == other.step && digest == other.digest;
  }
};

/// Where workers find the weights of a version. They do not pass the controller.
struct Publication {
  WeightVersion version;
  std::string file;     ///< a file to map, where its path is shared; else empty
  std::string address;  ///< HOST:PORT of the learner that streams them; else empty
  int64_t bytes = 0;    ///< size of the file
  /// Of a network beside the policy that voices draw from; at most one.
  std::vector<Publication> companions;
  int64_t epoch = 0;      ///< of the group that it was broadcast to (broadcasts.h); 0: it was not
  int64_t broadcast = 0;  ///< number of that broadcast
  /// Where the file is an adapter's, the whole weights that it is beside; else empty.
  std::vector<Publication> base;
};

/// One response to generate, with its prompt.
struct GenerateItem {
  SampleId id;
  std::vector<int64_t> prompt;
  Voice voice;          ///< whose response
  bool greedy = false;  ///< at temperature 0
};

/// One finished response to score, as text.
struct ScoreItem {
  SampleId id;
  Sample sample;
  std::vector<Rival> rivals;  ///< to compare it with; empty without pairwise scoring
};

/// Work handed to one worker until a deadline; what it has not completed then goes to another.
struct Lease {
  int64_t id = 0;  ///< > 0
  LeaseKind kind = LeaseKind::kGenerate;
  Purpose purpose = Purpose::kPolicy;  ///< kPolicy: for training; kEvaluation: held-out prompts
  uint32_t stage = 0;                  ///< index of the stage in the job
  Publication weights;                 ///< to generate with
  uint64_t job_seed = 0;
  std::chrono::milliseconds time{0};   ///< from now until it is given to another
  SamplingParams params;               ///< generate
  std::vector<GenerateItem> generate;  ///< in sample order
  std::vector<ScoreItem> score;        ///< in sample order
};

struct RolloutResult {
  SampleId id;
  Generation generation;
};

struct ScoreResult {
  SampleId id;
  Score score;
};

/// Results of a lease, some or all; the lease ends with its last item.
struct Completion {
  std::string worker;
  int64_t lease = 0;
  Purpose purpose = Purpose::kPolicy;
  WeightVersion weights;  ///< the lease's, that the rollouts began with (Generation::versions)
  std::vector<RolloutResult> rollouts;  ///< of a generation lease
  std::vector<ScoreResult> scores;      ///< of a scoring lease
};

enum class Role : uint8_t { kRollout, kReward, kLearner, kRelay };
const char* to_string(Role role);  ///< "rollout", "reward", "learner", "relay"

/// Who a process of a run is. A worker that serves both kinds is a rollout worker.
struct MemberInfo {
  std::string name;  ///< unique in the run: "rollout-0", "learner-1"; chosen by who starts it
  Role role = Role::kRollout;
  std::vector<LeaseKind> serves;  ///< empty for a learner, and for a relay
  std::string host;
  int64_t pid = 0;
  int32_t rank = 0;  ///< of a learner
  int32_t threads = 0;
  int64_t incarnation = 0;  ///< differs for each process that had the name
};

/// What a member is told when it joins.
struct Admission {
  std::string run_id;
  std::string run_dir;                        ///< as the controller's host names it
  std::string job;                            ///< text of resolved.yaml
  std::chrono::milliseconds heartbeat{2000};  ///< how often it is wanted
};

/// Sent at every heartbeat. `progress` moves whenever work moves (tokens, samples, micro-batches);
/// a member that is busy and whose progress stands still is hung.
struct Heartbeat {
  std::string name;
  int64_t incarnation = 0;
  bool busy = false;
  int64_t progress = 0;
  int64_t weight_step = -1;  ///< of the weights it holds; -1: none
};

enum class Orders : uint8_t {
  kGoOn,
  kRegister,  ///< the controller does not know the member (it was restarted): join again
  kLeave,     ///< the run is over, or the member was replaced: end
};

struct LeaseRequest {
  std::string worker;
  LeaseKind kind = LeaseKind::kGenerate;
  int64_t max_items = 1;
  int64_t number =
      0;  ///< counts the worker's requests of a kind; a repeated one gets the same answer
  std::chrono::milliseconds wait{0};  ///< for work to turn up
};

/// Asks for weights that are newer than those a lease named.
struct NewerWeights {
  uint32_t stage = 0;  ///< of the lease
  int64_t step = 0;    ///< of the weights at hand
  std::chrono::milliseconds wait{0};
};

/// What workers and learners ask. Every call may be repeated. Any thread.
/// Errors: RefusedError; RpcError from a remote one that stays out of reach.
class WorkerService {
 public:
  virtual ~WorkerService() = default;
  virtual Admission join(const MemberInfo& member) = 0;
  virtual Orders heartbeat(const Heartbeat& beat) = 0;
  /// Leaves in good order: leases go back at once.
  virtual void leave(const std::string& name) = 0;
  /// Nothing when no work of this kind turned up within `wait`.
  virtual std::optional<Lease> lease(const LeaseRequest& request) = 0;
  /// When it returns the results are durable. Results that are recorded already, or that nobody
  /// wants any more, are ignored. @throws RefusedError for a lease that another worker holds
  virtual void complete(Completion completion) = 0;
  /// The weights that the next responses of a stage come from, once they are newer; nothing when
  /// none were published within `wait`. For responses that go on under them.
  virtual std::optional<Publication> newer_weights(const NewerWeights& request) = 0;

  // The calls of several workers at once, as a relay makes them. Unless they are overridden, one
  // after another.
  virtual std::vector<Orders> heartbeat_all(const std::vector<Heartbeat>& beats);
  /// Of each request, in order. Waits until there is work for one of them, the requests' own waits
  /// mean nothing. @param requests  at least one, all of one kind
  virtual std::vector<std::optional<Lease>> lease_some(const std::vector<LeaseRequest>& requests,
                                                       std::chrono::milliseconds wait);
  /// Throws the error of one of them when all have been taken in.
  virtual void complete_all(std::vector<Completion> completions);
};

/// A finished and scored response.
struct ScoredSample {
  RolloutRecord rollout;
  ScoreRecord score;
};

/// Part `rank` of `world` contiguous parts.
struct Slice {
  int32_t rank = 0;
  int32_t world = 1;
  int64_t begin(int64_t count) const { return count * rank / world; }
  int64_t end(int64_t count) const { return count * (rank + 1) / world; }
};

/// What a step trains on, or one rank's slice of it: samples in order.
struct StepBatch {
  int64_t step = 0;
  int64_t total_samples = 0;          ///< of the whole batch
  std::vector<ScoredSample> samples;  ///< of the slice
  bool replayed = false;              ///< recorded before; trained again from the record
  /// Figures of the whole batch: reward/..., rollout/..., staleness/..., data/...
  std::vector<std::pair<std::string, double>> metrics;
  /// judge/... on all samples of the step, dropped ones included, and fault/...: what a resumed run
  /// need not repeat.
  std::vector<std::pair<std::string, double>> circumstances;
};

/// Held-out prompts answered and scored, in order. The texts stand beside the samples.
struct EvaluationBatch {
  std::vector<ScoredSample> samples;
  std::vector<std::string> prompts;
};

/// How far the ledger is with a stage.
struct StageProgress {
  bool known = false;  ///< it was begun
  bool finished = false;
  std::string result;        ///< relative to the run directory
  int64_t last_step = 0;     ///< recorded
  int64_t next_ordinal = 0;  ///< of prompts
  int64_t lineage = 0;       ///< times that the run went back to a checkpoint
};

/// One step of an offline stage, whose rows come from a file.
struct RowStep {
  std::vector<PromptRecord> fresh;  ///< rows that are taken for the first time
  BatchRecord batch;
  StepRecord record;
};

/// What the learner group asks; all but the waits are rank 0's. Every call may be repeated.
/// Errors as of WorkerService, and those of the ledger.
class LearnerService {
 public:
  virtual ~LearnerService() = default;
  virtual StageProgress stage_progress(uint32_t stage) = 0;
  virtual std::vector<CheckpointRecord> checkpoints() = 0;
  /// Opens a stage, or goes on with it, from the state after `step`: later steps are to be trained
  /// again. Leases of the stage before it end.
  /// @return the stage as it stood before
  virtual StageProgress begin_stage(uint32_t stage, int64_t step) = 0;
  virtual void finish_stage(uint32_t stage, const std::string& result) = 0;
  virtual void set_fact(const std::string& key, const std::string& value) = 0;
  virtual void record_checkpoint(const CheckpointRecord& checkpoint) = 0;
  virtual void forget_checkpoint(const std::string& path) = 0;

  /// Offline: batch and step in one commit.
  virtual StepOutcome commit_rows(uint32_t stage, const RowStep& step) = 0;

  /// Online: true when the batch of `step` is recorded, so that nobody needs the weights before it.
  virtual bool has_batch(uint32_t stage, int64_t step) = 0;
  /// Begins step `step` with samples of `weights`. What is recorded of it is taken over.
  virtual void open_step(uint32_t stage, int64_t step, const Publication& weights) = 0;
  /// The slice of the step's batch once every sample is scored; nothing when that took longer than
  /// `wait`. @throws DataError when no sample could be scored
  virtual std::optional<StepBatch> wait_batch(uint32_t stage,
                                              int64_t step,
                                              Slice slice,
                                              std::chrono::milliseconds wait) = 0;
  /// Records the step in one commit: the batch that closed, the learner's cut of it, digests.
  virtual StepOutcome commit_step(uint32_t stage,
                                  const std::string& learner_manifest,
                                  const StepRecord& record) = 0;
  /// Asks for one sample of each of the first `count` held-out prompts, under keys that depend on
  /// the job's seed and the prompt alone.
  virtual void open_evaluation(uint32_t stage,
                               int64_t step,
                               int64_t count,
                               const Publication& weights) = 0;
  virtual std::optional<EvaluationBatch> wait_evaluation(uint32_t stage,
                                                         int64_t step,
                                                         std::chrono::milliseconds wait) = 0;
};

/// A member as `status` shows it.
struct MemberStatus {
  MemberInfo info;
  double seconds_since_heartbeat = 0;
  bool busy = false;
  bool lost = false;  ///< dead or hung; its leases went to others
  std::string why;    ///< of a lost one
  int64_t progress = 0;
  int64_t weight_step = -1;
  int64_t open_leases = 0;
  int64_t samples = 0;  ///< completed
};

/// How the weights of workers on GPUs go (broadcasts.h).
struct BroadcastStatus {
  int64_t epoch = 0;                 ///< of the last broadcast; 0: none yet
  int64_t number = 0;                ///< of it in the epoch
  std::vector<std::string> members;  ///< by rank; the publisher is the first
  std::vector<std::string> waiting;  ///< workers that the next epoch takes in
  std::string change;                ///< why the next broadcast begins an epoch; empty: it does not
};

struct RunStatus {
  std::string run_id;
  std::string job;     ///< name
  int32_t stage = -1;  ///< open now; -1: none yet
  std::string stage_name;
  int64_t step = 0;         ///< open, or last committed
  int64_t total_steps = 0;  ///< 0: not known yet
  WeightVersion weights;
  int64_t to_generate = 0, generating = 0, to_score = 0, scoring = 0, ready = 0;  ///< samples
  int64_t leases_reissued = 0;
  int64_t restarts = 0;                ///< of members, as the supervisor reported them
  std::vector<std::string> set_aside;  ///< prompts that killed workers
  std::vector<MemberStatus> members;
  std::map<uint32_t, Balance> balances;  ///< by stage
  bool over = false;
  std::optional<BroadcastStatus> broadcast;  ///< nothing: weights are not broadcast
};

/// What `train`'s supervisor and `status` ask.
class SupervisorService {
 public:
  virtual ~SupervisorService() = default;
  virtual RunStatus status() = 0;
  /// The process of a member ended, or was ended: its leases go to others at once.
  virtual void report_death(const std::string& name,
                            int64_t incarnation,
                            const std::string& why) = 0;
  /// No more work: every member is ordered to leave.
  virtual void end_run() = 0;
};

}  // namespace praetor
