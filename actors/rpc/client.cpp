#include "actors/rpc/client.h"

#include <algorithm>

#include "actors/rpc/channel.h"
#include "actors/rpc/fields.h"
#include "praetor/v1/learner.grpc.pb.h"
#include "praetor/v1/supervisor.grpc.pb.h"
#include "praetor/v1/worker.grpc.pb.h"

namespace praetor {

using rpc::from_proto;
using rpc::to_proto;
using std::chrono::milliseconds;
using LearnerStub = v1::Learner::Stub;
using SupervisorStub = v1::Supervisor::Stub;
using WorkerStub = v1::Worker::Stub;

namespace {

/// A stream of parts; nothing when the answer is not ready within `wait`.
template <typename Batch, typename Request, typename Part>
std::optional<Batch> poll_parts(
    RpcChannel& channel,
    const char* call,
    std::unique_ptr<grpc::ClientAsyncReader<Part>> (LearnerStub::*method)(grpc::ClientContext*,
                                                                          const Request&,
                                                                          grpc::CompletionQueue*),
    const Request& request,
    milliseconds wait) {
  std::vector<Part> parts;
  channel.stream(
      call,
      method,
      wait,
      [&]() -> const Request& {
        parts.clear();
        return request;
      },
      [&](Part& part) {
        parts.push_back(std::move(part));
        return true;
      });
  if (parts.empty()) return std::nullopt;
  if (parts.front().retry_after_ms() > 0) {
    channel.pause_as_told(call, parts.front().retry_after_ms(), wait);
    return std::nullopt;
  }
  return rpc::in_field(call, [&] { return rpc::from_parts(parts); });
}

}  // namespace

WorkerClient::WorkerClient(const RpcClientOptions& options)
    : channel_(std::make_unique<RpcChannel>(options)) {}
WorkerClient::~WorkerClient() = default;

Admission WorkerClient::join(const MemberInfo& member) {
  v1::JoinRequest request;
  to_proto(member, request.mutable_member());
  return from_proto(channel_->unary("Worker.Join", &WorkerStub::PrepareAsyncJoin, request));
}

Orders WorkerClient::heartbeat(const Heartbeat& beat) {
  v1::HeartbeatRequest request;
  to_proto(beat, &request);
  return from_proto(
      channel_->unary("Worker.Heartbeat", &WorkerStub::PrepareAsyncHeartbeat, request).orders());
}

void WorkerClient::leave(const std::string& name) {
  v1::LeaveRequest request;
  request.set_name(rpc::name_field("name", name));
  channel_->unary("Worker.Leave", &WorkerStub::PrepareAsyncLeave, request);
}

std::optional<Lease> WorkerClient::lease(const LeaseRequest& asked) {
  v1::LeaseRequest request;
  to_proto(asked, &request);
  const milliseconds wait = RpcChannel::cut(asked.wait);
  request.set_wait_ms(wait.count());
  const v1::LeaseResponse answer =
      channel_->unary("Worker.Lease", &WorkerStub::PrepareAsyncLease, request, wait);
  if (answer.has_lease()) return from_proto(answer.lease());
  channel_->pause_as_told("Worker.Lease", answer.retry_after_ms(), wait);
  return std::nullopt;
}

std::optional<Publication> WorkerClient::newer_weights(const NewerWeights& asked) {
  v1::NewerWeightsRequest request;
  request.set_stage(asked.stage);
  request.set_step(asked.step);
  const milliseconds wait = RpcChannel::cut(asked.wait);
  request.set_wait_ms(wait.count());
  const v1::NewerWeightsResponse answer =
      channel_->unary("Worker.NewerWeights", &WorkerStub::PrepareAsyncNewerWeights, request, wait);
  if (answer.has_weights()) return from_proto(answer.weights());
  channel_->pause_as_told("Worker.NewerWeights", answer.retry_after_ms(), wait);
  return std::nullopt;
}

void WorkerClient::complete(Completion completion) {
  const std::vector<RolloutResult> rollouts = std::move(completion.rollouts);
  const std::vector<ScoreResult> scores = std::move(completion.scores);
  completion.rollouts.clear();
  completion.scores.clear();
  v1::CompleteRequest request;
  to_proto(completion, &request);
  int64_t filled = 0;
  int64_t sent = 0;
  const auto send = [&] {
    channel_->unary("Worker.Complete", &WorkerStub::PrepareAsyncComplete, request);
    request.clear_rollouts();
    request.clear_scores();
    filled = 0;
    ++sent;
  };
  // Sent when the next item would make it too large; an item alone may be larger.
  const auto make_room = [&](int64_t bytes) {
    if (filled > 0 && filled + bytes > channel_->options().part_bytes) send();
    filled += bytes;
  };
  for (const RolloutResult& rollout : rollouts) {
    v1::RolloutResult item;
    to_proto(rollout, &item);
    make_room(static_cast<int64_t>(item.ByteSizeLong()));
    *request.add_rollouts() = std::move(item);
  }
  for (const ScoreResult& score : scores) {
    v1::ScoreResult item;
    to_proto(score, &item);
    make_room(static_cast<int64_t>(item.ByteSizeLong()));
    *request.add_scores() = std::move(item);
  }
  if (filled > 0 || sent == 0) send();
}

std::vector<Orders> WorkerClient::heartbeat_all(const std::vector<Heartbeat>& beats) {
  v1::HeartbeatAllRequest request;
  for (const Heartbeat& beat : beats) to_proto(beat, request.add_beats());
  const v1::HeartbeatAllResponse answer =
      channel_->unary("Worker.HeartbeatAll", &WorkerStub::PrepareAsyncHeartbeatAll, request);
  if (answer.orders_size() != static_cast<int>(beats.size()))
    rpc::refuse("orders", answer.orders_size(), " came for ", beats.size(), " heartbeats");
  std::vector<Orders> out;
  for (int i = 0; i < answer.orders_size(); ++i) out.push_back(from_proto(answer.orders(i)));
  return out;
}

std::vector<std::optional<Lease>> WorkerClient::lease_some(
    const std::vector<LeaseRequest>& requests, milliseconds wait) {
  v1::LeaseSomeRequest request;
  for (const LeaseRequest& one : requests) to_proto(one, request.add_requests());
  wait = RpcChannel::cut(wait);
  request.set_wait_ms(wait.count());
  const v1::LeaseSomeResponse answer =
      channel_->unary("Worker.LeaseSome", &WorkerStub::PrepareAsyncLeaseSome, request, wait);
  if (answer.leases().empty())
    channel_->pause_as_told("Worker.LeaseSome", answer.retry_after_ms(), wait);
  return rpc::leases_from(answer, requests.size());
}

void WorkerClient::complete_all(std::vector<Completion> completions) {
  v1::CompleteAllRequest request;
  int64_t filled = 0;
  const auto send = [&] {
    if (request.completions().empty()) return;
    channel_->unary("Worker.CompleteAll", &WorkerStub::PrepareAsyncCompleteAll, request);
    request.Clear();
    filled = 0;
  };
  for (Completion& completion : completions) {
    v1::CompleteRequest item;
    to_proto(completion, &item);
    const auto bytes = static_cast<int64_t>(item.ByteSizeLong());
    if (filled + bytes > channel_->options().part_bytes) send();
    if (bytes > channel_->options().part_bytes) {
      complete(std::move(completion));
      continue;
    }
    filled += bytes;
    *request.add_completions() = std::move(item);
  }
  send();
}

LearnerClient::LearnerClient(const RpcClientOptions& options)
    : channel_(std::make_unique<RpcChannel>(options)) {}
LearnerClient::~LearnerClient() = default;

StageProgress LearnerClient::stage_progress(uint32_t stage) {
  v1::StageProgressRequest request;
  request.set_stage(stage);
  return from_proto(
      channel_->unary("Learner.StageProgress", &LearnerStub::PrepareAsyncStageProgress, request));
}

std::vector<CheckpointRecord> LearnerClient::checkpoints() {
  const auto answer = channel_->unary(
      "Learner.Checkpoints", &LearnerStub::PrepareAsyncCheckpoints, v1::CheckpointsRequest());
  return rpc::list_from<CheckpointRecord>("checkpoints", answer.checkpoints());
}

StageProgress LearnerClient::begin_stage(uint32_t stage, int64_t step) {
  v1::BeginStageRequest request;
  request.set_stage(stage);
  request.set_step(step);
  return from_proto(
      channel_->unary("Learner.BeginStage", &LearnerStub::PrepareAsyncBeginStage, request));
}

void LearnerClient::finish_stage(uint32_t stage, const std::string& result) {
  v1::FinishStageRequest request;
  request.set_stage(stage);
  request.set_result(result);
  channel_->unary("Learner.FinishStage", &LearnerStub::PrepareAsyncFinishStage, request);
}

void LearnerClient::set_fact(const std::string& key, const std::string& value) {
  v1::SetFactRequest request;
  request.set_key(rpc::name_field("key", key));
  request.set_value(value);
  channel_->unary("Learner.SetFact", &LearnerStub::PrepareAsyncSetFact, request);
}

void LearnerClient::record_checkpoint(const CheckpointRecord& checkpoint) {
  v1::RecordCheckpointRequest request;
  to_proto(checkpoint, request.mutable_checkpoint());
  channel_->unary("Learner.RecordCheckpoint", &LearnerStub::PrepareAsyncRecordCheckpoint, request);
}

void LearnerClient::forget_checkpoint(const std::string& path) {
  v1::ForgetCheckpointRequest request;
  request.set_path(path);
  channel_->unary("Learner.ForgetCheckpoint", &LearnerStub::PrepareAsyncForgetCheckpoint, request);
}

StepOutcome LearnerClient::commit_rows(uint32_t stage, const RowStep& step) {
  v1::CommitRowsRequest request;
  request.set_stage(stage);
  to_proto(step, &request);
  return from_proto(
      channel_->unary("Learner.CommitRows", &LearnerStub::PrepareAsyncCommitRows, request)
          .outcome());
}

bool LearnerClient::has_batch(uint32_t stage, int64_t step) {
  v1::HasBatchRequest request;
  request.set_stage(stage);
  request.set_step(step);
  return channel_->unary("Learner.HasBatch", &LearnerStub::PrepareAsyncHasBatch, request)
      .has_batch();
}

void LearnerClient::open_step(uint32_t stage, int64_t step, const Publication& weights) {
  v1::OpenStepRequest request;
  request.set_stage(stage);
  request.set_step(step);
  to_proto(weights, request.mutable_weights());
  channel_->unary("Learner.OpenStep", &LearnerStub::PrepareAsyncOpenStep, request);
}

std::optional<StepBatch> LearnerClient::wait_batch(uint32_t stage,
                                                   int64_t step,
                                                   Slice slice,
                                                   milliseconds wait) {
  v1::WaitBatchRequest request;
  request.set_stage(stage);
  request.set_step(step);
  request.set_rank(slice.rank);
  request.set_world(slice.world);
  wait = RpcChannel::cut(wait);
  request.set_wait_ms(wait.count());
  return poll_parts<StepBatch>(
      *channel_, "Learner.WaitBatch", &LearnerStub::PrepareAsyncWaitBatch, request, wait);
}

StepOutcome LearnerClient::commit_step(uint32_t stage,
                                       const std::string& learner_manifest,
                                       const StepRecord& record) {
  v1::CommitStepRequest request;
  request.set_stage(stage);
  request.set_learner_manifest(learner_manifest);
  to_proto(record, request.mutable_record());
  return from_proto(
      channel_->unary("Learner.CommitStep", &LearnerStub::PrepareAsyncCommitStep, request)
          .outcome());
}

void LearnerClient::open_evaluation(uint32_t stage,
                                    int64_t step,
                                    int64_t count,
                                    const Publication& weights) {
  v1::OpenEvaluationRequest request;
  request.set_stage(stage);
  request.set_step(step);
  request.set_count(count);
  to_proto(weights, request.mutable_weights());
  channel_->unary("Learner.OpenEvaluation", &LearnerStub::PrepareAsyncOpenEvaluation, request);
}

std::optional<EvaluationBatch> LearnerClient::wait_evaluation(uint32_t stage,
                                                              int64_t step,
                                                              milliseconds wait) {
  v1::WaitEvaluationRequest request;
  request.set_stage(stage);
  request.set_step(step);
  wait = RpcChannel::cut(wait);
  request.set_wait_ms(wait.count());
  return poll_parts<EvaluationBatch>(
      *channel_, "Learner.WaitEvaluation", &LearnerStub::PrepareAsyncWaitEvaluation, request, wait);
}

SupervisorClient::SupervisorClient(const RpcClientOptions& options)
    : channel_(std::make_unique<RpcChannel>(options)) {}
SupervisorClient::~SupervisorClient() = default;

RunStatus SupervisorClient::status() {
  return from_proto(channel_->unary(
      "Supervisor.Status", &SupervisorStub::PrepareAsyncStatus, v1::StatusRequest()));
}

void SupervisorClient::report_death(const std::string& name,
                                    int64_t incarnation,
                                    const std::string& why) {
  v1::ReportDeathRequest request;
  request.set_name(rpc::name_field("name", name));
  request.set_incarnation(incarnation);
  request.set_why(why);
  channel_->unary("Supervisor.ReportDeath", &SupervisorStub::PrepareAsyncReportDeath, request);
}

void SupervisorClient::end_run() {
  channel_->unary("Supervisor.EndRun", &SupervisorStub::PrepareAsyncEndRun, v1::EndRunRequest());
}

}  // namespace praetor
