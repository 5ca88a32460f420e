#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

#include "actors/controller/services.h"
#include "tests/actors/rpc/examples.h"

namespace praetor::testing {

/// The interfaces in memory: answers with the examples and keeps what it was told.
class FakeServices final : public WorkerService,
                           public LearnerService,
                           public SupervisorService,
                           public BroadcastService {
 public:
  /// Called first in every verb with its name; may throw.
  std::function<void(const std::string& verb)> before;
  StepBatch batch = example_batch();
  EvaluationBatch evaluation = example_evaluation();
  bool batch_ready = true;

  void offer(const Lease& lease) {
    const std::lock_guard lock(mutex_);
    leases_.push_back(lease);
    changed_.notify_all();
  }
  /// Ends all waits, now and later.
  void end_waits() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  int waiting() {
    const std::lock_guard lock(mutex_);
    return waiting_;
  }
  /// Blocks until `count` calls wait for work. @return false after 20 s
  bool wait_for_waiting(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return waiting_ >= count; });
  }
  std::vector<std::string> calls() {
    const std::lock_guard lock(mutex_);
    return calls_;
  }

  // What the last call of a verb brought.
  MemberInfo member;
  Heartbeat beat;
  LeaseRequest request;
  BroadcastCall call;
  AwaitBroadcast awaited;
  NewerWeights newer;
  std::vector<Completion> completions;
  CheckpointRecord checkpoint;
  RowStep rows;
  StepRecord step;
  Publication weights;
  Slice slice;
  int64_t number = 0;
  int64_t held_out = 0;
  std::string text, other_text;

  Admission join(const MemberInfo& from) override {
    note("join");
    member = from;
    return {"run", "/runs/\xff", "job: 1\n", std::chrono::milliseconds(1500)};
  }
  Orders heartbeat(const Heartbeat& from) override {
    note("heartbeat");
    beat = from;
    return Orders::kRegister;
  }
  void leave(const std::string& name) override {
    note("leave");
    text = name;
  }
  std::optional<Lease> lease(const LeaseRequest& from) override {
    note("lease");
    std::unique_lock lock(mutex_);
    request = from;
    ++waiting_;
    changed_.notify_all();
    changed_.wait_for(lock, from.wait, [&] { return ended_ || !leases_.empty(); });
    --waiting_;
    if (leases_.empty()) return std::nullopt;
    const Lease lease = leases_.front();
    leases_.pop_front();
    return lease;
  }
  void complete(Completion completion) override {
    note("complete");
    const std::lock_guard lock(mutex_);
    completions.push_back(std::move(completion));
  }
  std::optional<Publication> newer_weights(const NewerWeights& from) override {
    note("newer_weights");
    const std::lock_guard lock(mutex_);
    newer = from;
    if (!batch_ready) return std::nullopt;
    return example_publication();
  }

  StageProgress stage_progress(uint32_t stage) override {
    note("stage_progress");
    return {true, true, "stage-\xff", stage, 17};
  }
  std::vector<CheckpointRecord> checkpoints() override {
    note("checkpoints");
    return {{2, 40, "checkpoints/step-40", true}, {2, 30, "checkpoints/step-30", false}};
  }
  StageProgress begin_stage(uint32_t stage, int64_t from) override {
    note("begin_stage");
    return {true, false, "", from, stage};
  }
  void finish_stage(uint32_t stage, const std::string& result) override {
    note("finish_stage");
    number = stage;
    text = result;
  }
  void set_fact(const std::string& key, const std::string& value) override {
    note("set_fact");
    text = key;
    other_text = value;
  }
  void record_checkpoint(const CheckpointRecord& from) override {
    note("record_checkpoint");
    checkpoint = from;
  }
  void forget_checkpoint(const std::string& path) override {
    note("forget_checkpoint");
    text = path;
  }
  StepOutcome commit_rows(uint32_t, const RowStep& from) override {
    note("commit_rows");
    rows = from;
    return StepOutcome::kReplayedDifferent;
  }
  bool has_batch(uint32_t, int64_t at) override {
    note("has_batch");
    number = at;
    return true;
  }
  void open_step(uint32_t, int64_t at, const Publication& from) override {
    note("open_step");
    number = at;
    weights = from;
  }
  std::optional<StepBatch> wait_batch(uint32_t,
                                      int64_t at,
                                      Slice part,
                                      std::chrono::milliseconds) override {
    note("wait_batch");
    number = at;
    slice = part;
    if (!batch_ready) return std::nullopt;
    return batch;
  }
  StepOutcome commit_step(uint32_t, const std::string& manifest, const StepRecord& from) override {
    note("commit_step");
    text = manifest;
    step = from;
    return StepOutcome::kReplayedIdentical;
  }
  void open_evaluation(uint32_t, int64_t at, int64_t wanted, const Publication& from) override {
    note("open_evaluation");
    number = at;
    held_out = wanted;
    weights = from;
  }
  std::optional<EvaluationBatch> wait_evaluation(uint32_t,
                                                 int64_t at,
                                                 std::chrono::milliseconds) override {
    note("wait_evaluation");
    number = at;
    if (!batch_ready) return std::nullopt;
    return evaluation;
  }

  RunStatus status() override {
    note("status");
    return example_status();
  }
  void report_death(const std::string& name, int64_t incarnation, const std::string& why) override {
    note("report_death");
    text = name;
    number = incarnation;
    other_text = why;
  }
  void end_run() override { note("end_run"); }

  OpenedBroadcast open_broadcast(const OpenBroadcast& from) override {
    note("open_broadcast");
    text = from.publisher;
    number = from.held;
    return example_opened();
  }
  void start_broadcast(const BroadcastCall& from) override {
    note("start_broadcast");
    call = from;
  }
  std::optional<std::string> watch_broadcast(const BroadcastNumber& from,
                                             std::chrono::milliseconds) override {
    note("watch_broadcast");
    number = from.number;
    if (!batch_ready) return std::nullopt;
    return "rollout-1: signal 9 \xff";
  }
  void close_broadcast(const BroadcastNumber& from, const std::string& failure) override {
    note("close_broadcast");
    number = from.number;
    text = failure;
  }
  std::optional<BroadcastCall> await_broadcast(const AwaitBroadcast& from) override {
    note("await_broadcast");
    awaited = from;
    if (!batch_ready) return std::nullopt;
    return example_call();
  }

 private:
  void note(const std::string& verb) {
    {
      const std::lock_guard lock(mutex_);
      calls_.push_back(verb);
    }
    if (before) before(verb);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Lease> leases_;
  std::vector<std::string> calls_;
  int waiting_ = 0;
  bool ended_ = false;
};

}  // namespace praetor::testing
