#pragma once

#include <condition_variable>
#include <exception>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "actors/controller/broadcast_desk.h"
#include "actors/controller/controller.h"
#include "actors/controller/idle_clock.h"
#include "actors/controller/members.h"
#include "actors/controller/services.h"
#include "actors/job/job_config.h"

namespace praetor {

struct RunControllerOptions {
  std::string run_id;
  Patience patience;
};

/// The controller of a run: owns the account (through the ledger), the stage in work, and the list
/// of members. What all roles ask, in one process (colocated) or behind the gRPC server. A new one
/// over the same run directory goes on where this one ended; callers repeat what they asked for.
///
/// Any thread. Results that arrive together are made durable in one commit. Job and ledger are
/// borrowed; the ledger may be read-only, for `replay`.
class RunController final : public WorkerService, public LearnerService, public SupervisorService {
 public:
  RunController(const JobConfig& job,
                std::filesystem::path run_dir,
                Ledger& ledger,
                RunControllerOptions options);
  ~RunController() override;

  Admission join(const MemberInfo& member) override;
  Orders heartbeat(const Heartbeat& beat) override;
  void leave(const std::string& name) override;
  std::optional<Lease> lease(const LeaseRequest& request) override;
  void complete(Completion completion) override;
  std::optional<Publication> newer_weights(const NewerWeights& request) override;
  std::vector<Orders> heartbeat_all(const std::vector<Heartbeat>& beats) override;
  std::vector<std::optional<Lease>> lease_some(const std::vector<LeaseRequest>& requests,
                                               std::chrono::milliseconds wait) override;
  void complete_all(std::vector<Completion> completions) override;

  StageProgress stage_progress(uint32_t stage) override;
  std::vector<CheckpointRecord> checkpoints() override;
  StageProgress begin_stage(uint32_t stage, int64_t step) override;
  void finish_stage(uint32_t stage, const std::string& result) override;
  void set_fact(const std::string& key, const std::string& value) override;
  void record_checkpoint(const CheckpointRecord& checkpoint) override;
  void forget_checkpoint(const std::string& path) override;
  StepOutcome commit_rows(uint32_t stage, const RowStep& step) override;
  bool has_batch(uint32_t stage, int64_t step) override;
  void open_step(uint32_t stage, int64_t step, const Publication& weights) override;
  std::optional<StepBatch> wait_batch(uint32_t stage,
                                      int64_t step,
                                      Slice slice,
                                      std::chrono::milliseconds wait) override;
  StepOutcome commit_step(uint32_t stage,
                          const std::string& learner_manifest,
                          const StepRecord& record) override;
  void open_evaluation(uint32_t stage,
                       int64_t step,
                       int64_t count,
                       const Publication& weights) override;
  std::optional<EvaluationBatch> wait_evaluation(uint32_t stage,
                                                 int64_t step,
                                                 std::chrono::milliseconds wait) override;

  RunStatus status() override;
  void report_death(const std::string& name, int64_t incarnation, const std::string& why) override;
  void end_run() override;

  /// Who takes part in broadcasts of weights (publish.via: nccl).
  BroadcastService& broadcasts() { return broadcasts_; }

  /// Looks for members that are lost and leases that are late; its host calls it a few times a
  /// second.
  void tick();
  /// What the host of a controller asks often, without the accounts.
  struct Glance {
    bool over = false;
    int64_t step = 0;
    int64_t members = 0;
  };
  Glance glance() const;

 private:
  struct Arrival;
  /// One that asks for work.
  struct Asker {
    const LeaseRequest& request;
    int64_t incarnation = 0;  ///< of its process when it asked
  };

  void notify();
  void notify_all();
  std::condition_variable& work_for(LeaseKind kind) {
    return kind == LeaseKind::kGenerate ? to_generate_ : to_score_;
  }
  const StageConfig& config_of(uint32_t stage) const;
  Controller& desk(uint32_t stage);
  Controller& desk_at(uint32_t stage, int64_t step);
  void close_desk();
  void settle(const std::vector<Arrival*>& arrivals);
  StageProgress progress_of(uint32_t stage) const;
  int64_t fair_share(const LeaseRequest& request) const;
  std::optional<Lease> answer_again(const LeaseRequest& request) const;
  std::optional<Lease> grant(const Asker& asker);
  Orders take_in(const Heartbeat& beat);
  void add_idle(std::vector<std::pair<std::string, double>>& figures);
  void lose_leases(const std::string& name, bool died);

  const JobConfig& job_;
  const std::filesystem::path run_dir_;
  Ledger& ledger_;
  const RunControllerOptions options_;
  BroadcastDesk broadcasts_;

  /// Held while something is recorded that what is open must not change under; taken before
  /// `mutex_`.
  std::mutex recording_;
  mutable std::mutex mutex_;                        ///< all below
  std::condition_variable changed_;                 ///< batches
  std::condition_variable to_generate_, to_score_;  ///< work waits
  std::unique_ptr<Controller> desk_;                ///< of the online stage in work
  int32_t stage_ = -1;
  int64_t step_ = 0, total_steps_ = 0;
  Members members_;
  IdleClock idle_;
  /// The last lease of each worker and kind, for a repeated request.
  std::map<std::pair<std::string, LeaseKind>, std::pair<int64_t, Lease>> answers_;
  std::set<std::pair<std::string, int64_t>> deaths_;  ///< process and incarnation
  int64_t reissued_before_ = 0;
  std::vector<std::string> set_aside_before_;
  bool over_ = false;
  int64_t events_ = 0;  ///< counts the wakings

  std::mutex counting_;
  std::map<uint32_t, Balance> balances_;  ///< as they were at balanced_at_
  std::chrono::steady_clock::time_point balanced_at_;

  std::mutex inbox_mutex_;
  std::vector<Arrival*> inbox_;  ///< the first of them settles all, once nobody settles
  bool settling_ = false;
};

}  // namespace praetor
