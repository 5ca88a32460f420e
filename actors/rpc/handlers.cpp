#include "actors/rpc/handlers.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>

#include "actors/rpc/fields.h"
#include "actors/rpc/library_logs.h"

namespace praetor::rpc {

namespace {

std::chrono::milliseconds cut_wait(int64_t wait_ms, std::chrono::milliseconds most_wait) {
  return std::min(milliseconds("wait_ms", wait_ms), most_wait);
}

int64_t step_of(int64_t step) {
  return within("step", step, 1);
}

}  // namespace

void handle(WorkerService& service, const v1::JoinRequest& request, v1::JoinResponse* answer) {
  to_proto(service.join(in_field("member", [&] { return from_proto(request.member()); })), answer);
}

void handle(WorkerService& service,
            const v1::HeartbeatRequest& request,
            v1::HeartbeatResponse* answer) {
  answer->set_orders(to_proto(service.heartbeat(from_proto(request))));
}

void handle(WorkerService& service, const v1::LeaveRequest& request, v1::LeaveResponse*) {
  service.leave(name_field("name", request.name()));
}

void handle(WorkerService& service,
            const v1::LeaseRequest& request,
            std::chrono::milliseconds most_wait,
            v1::LeaseResponse* answer) {
  LeaseRequest asked = from_proto(request);
  asked.wait = std::min(asked.wait, most_wait);
  if (const auto lease = service.lease(asked)) to_proto(*lease, answer->mutable_lease());
}

void handle(WorkerService& service, const v1::CompleteRequest& request, v1::CompleteResponse*) {
  service.complete(from_proto(request));
}

void handle(WorkerService& service,
            const v1::HeartbeatAllRequest& request,
            v1::HeartbeatAllResponse* answer) {
  for (const Orders orders : service.heartbeat_all(list_from<Heartbeat>("beats", request.beats())))
    answer->add_orders(to_proto(orders));
}

void handle(WorkerService& service,
            const v1::LeaseSomeRequest& request,
            std::chrono::milliseconds most_wait,
            v1::LeaseSomeResponse* answer) {
  const auto asked = list_from<LeaseRequest>("requests", request.requests());
  if (asked.empty()) refuse("requests", "are none");
  for (const LeaseRequest& one : asked)
    if (one.kind != asked.front().kind) refuse("requests", "are of several kinds");
  const auto leases = service.lease_some(asked, cut_wait(request.wait_ms(), most_wait));
  for (size_t i = 0; i < leases.size(); ++i) {
    if (!leases[i]) continue;
    auto* one = answer->add_leases();
    one->set_request(static_cast<int32_t>(i));
    to_proto(*leases[i], one->mutable_lease());
  }
}

void handle(WorkerService& service, const v1::CompleteAllRequest& request, v1::CompleteResponse*) {
  service.complete_all(list_from<Completion>("completions", request.completions()));
}

void handle(WorkerService& service,
            const v1::NewerWeightsRequest& request,
            std::chrono::milliseconds most_wait,
            v1::NewerWeightsResponse* answer) {
  const auto found = service.newer_weights({.stage = request.stage(),
                                            .step = within("step", request.step(), 0),
                                            .wait = cut_wait(request.wait_ms(), most_wait)});
  if (found) to_proto(*found, answer->mutable_weights());
}

void handle(LearnerService& service,
            const v1::StageProgressRequest& request,
            v1::StageProgressResponse* answer) {
  to_proto(service.stage_progress(request.stage()), answer);
}

void handle(LearnerService& service,
            const v1::CheckpointsRequest&,
            v1::CheckpointsResponse* answer) {
  list_to(service.checkpoints(), answer->mutable_checkpoints());
}

void handle(LearnerService& service,
            const v1::BeginStageRequest& request,
            v1::StageProgressResponse* answer) {
  to_proto(service.begin_stage(request.stage(), within("step", request.step(), 0)), answer);
}

void handle(LearnerService& service,
            const v1::FinishStageRequest& request,
            v1::FinishStageResponse*) {
  service.finish_stage(request.stage(), path_field("result", request.result()));
}

void handle(LearnerService& service, const v1::SetFactRequest& request, v1::SetFactResponse*) {
  service.set_fact(name_field("key", request.key()), request.value());
}

void handle(LearnerService& service,
            const v1::RecordCheckpointRequest& request,
            v1::RecordCheckpointResponse*) {
  service.record_checkpoint(
      in_field("checkpoint", [&] { return from_proto(request.checkpoint()); }));
}

void handle(LearnerService& service,
            const v1::ForgetCheckpointRequest& request,
            v1::ForgetCheckpointResponse*) {
  service.forget_checkpoint(path_field("path", request.path()));
}

void handle(LearnerService& service,
            const v1::CommitRowsRequest& request,
            v1::CommitResponse* answer) {
  answer->set_outcome(to_proto(service.commit_rows(request.stage(), from_proto(request))));
}

void handle(LearnerService& service,
            const v1::HasBatchRequest& request,
            v1::HasBatchResponse* answer) {
  answer->set_has_batch(service.has_batch(request.stage(), step_of(request.step())));
}

void handle(LearnerService& service, const v1::OpenStepRequest& request, v1::OpenStepResponse*) {
  service.open_step(request.stage(), step_of(request.step()), in_field("weights", [&] {
                      return from_proto(request.weights());
                    }));
}

std::vector<v1::BatchPart> handle(LearnerService& service,
                                  const v1::WaitBatchRequest& request,
                                  std::chrono::milliseconds most_wait) {
  const auto batch = service.wait_batch(request.stage(),
                                        step_of(request.step()),
                                        from_proto(request),
                                        cut_wait(request.wait_ms(), most_wait));
  return batch ? to_parts(*batch, kPartBytes) : std::vector<v1::BatchPart>();
}

void handle(LearnerService& service,
            const v1::CommitStepRequest& request,
            v1::CommitResponse* answer) {
  answer->set_outcome(to_proto(
      service.commit_step(request.stage(), request.learner_manifest(), in_field("record", [&] {
                            return from_proto(request.record());
                          }))));
}

void handle(LearnerService& service,
            const v1::OpenEvaluationRequest& request,
            v1::OpenEvaluationResponse*) {
  service.open_evaluation(request.stage(),
                          within("step", request.step(), 0),
                          within("count", request.count(), 0, kMaxItems),
                          in_field("weights", [&] { return from_proto(request.weights()); }));
}

std::vector<v1::EvaluationPart> handle(LearnerService& service,
                                       const v1::WaitEvaluationRequest& request,
                                       std::chrono::milliseconds most_wait) {
  const auto batch = service.wait_evaluation(
      request.stage(), within("step", request.step(), 0), cut_wait(request.wait_ms(), most_wait));
  return batch ? to_parts(*batch, kPartBytes) : std::vector<v1::EvaluationPart>();
}

void handle(SupervisorService& service, const v1::StatusRequest&, v1::StatusResponse* answer) {
  to_proto(service.status(), answer);
}

void handle(SupervisorService& service,
            const v1::ReportDeathRequest& request,
            v1::ReportDeathResponse*) {
  service.report_death(name_field("name", request.name()), request.incarnation(), request.why());
}

void handle(SupervisorService& service, const v1::EndRunRequest&, v1::EndRunResponse*) {
  service.end_run();
}

void handle(BroadcastService& service,
            const v1::OpenBroadcastRequest& request,
            v1::OpenBroadcastResponse* answer) {
  to_proto(service.open_broadcast(from_proto(request)), answer);
}

void handle(BroadcastService& service,
            const v1::StartBroadcastRequest& request,
            v1::StartBroadcastResponse*) {
  service.start_broadcast(from_proto(request));
}

void handle(BroadcastService& service,
            const v1::CloseBroadcastRequest& request,
            v1::CloseBroadcastResponse*) {
  service.close_broadcast(in_field("number", [&] { return from_proto(request.number()); }),
                          request.failure());
}

void handle(BroadcastService& service,
            const v1::WatchBroadcastRequest& request,
            std::chrono::milliseconds most_wait,
            v1::WatchBroadcastResponse* answer) {
  const auto number = in_field("number", [&] { return from_proto(request.number()); });
  if (const auto lost = service.watch_broadcast(number, cut_wait(request.wait_ms(), most_wait)))
    answer->set_lost(*lost);
}

void handle(BroadcastService& service,
            const v1::AwaitBroadcastRequest& request,
            std::chrono::milliseconds most_wait,
            v1::AwaitBroadcastResponse* answer) {
  AwaitBroadcast asked = from_proto(request);
  asked.wait = std::min(asked.wait, most_wait);
  if (const auto call = service.await_broadcast(asked)) to_proto(*call, answer->mutable_call());
}

namespace {

using Bytes = std::string_view;

template <typename Message>
bool parse(Bytes bytes, Message* message) {
  if (bytes.size() > static_cast<size_t>(std::numeric_limits<int>::max())) return false;
  return message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

/// A request through its handler.
template <auto RpcServices::*kService, typename Request, typename Answer>
bool request(const RpcServices& services, Bytes bytes) {
  Request message;
  if (!parse(bytes, &message)) return false;
  Answer answer;
  handle(*(services.*kService), message, &answer);
  return true;
}

template <typename Request>
bool poll(const RpcServices& services, Bytes bytes) {
  Request message;
  if (!parse(bytes, &message)) return false;
  constexpr std::chrono::milliseconds kNoWait{0};
  if constexpr (std::is_same_v<Request, v1::LeaseRequest>) {
    v1::LeaseResponse answer;
    handle(*services.worker, message, kNoWait, &answer);
  } else if constexpr (std::is_same_v<Request, v1::LeaseSomeRequest>) {
    v1::LeaseSomeResponse answer;
    handle(*services.worker, message, kNoWait, &answer);
  } else if constexpr (std::is_same_v<Request, v1::NewerWeightsRequest>) {
    v1::NewerWeightsResponse answer;
    handle(*services.worker, message, kNoWait, &answer);
  } else if constexpr (std::is_same_v<Request, v1::WatchBroadcastRequest>) {
    v1::WatchBroadcastResponse answer;
    handle(*services.broadcasts, message, kNoWait, &answer);
  } else if constexpr (std::is_same_v<Request, v1::AwaitBroadcastRequest>) {
    v1::AwaitBroadcastResponse answer;
    handle(*services.broadcasts, message, kNoWait, &answer);
  } else {
    handle(*services.learner, message, kNoWait);
  }
  return true;
}

/// An answer through the conversion that the client does.
template <typename Answer>
bool answer(const RpcServices&, Bytes bytes) {
  Answer message;
  if (!parse(bytes, &message)) return false;
  if constexpr (std::is_same_v<Answer, v1::LeaseResponse>) {
    if (message.has_lease()) from_proto(message.lease());
  } else if constexpr (std::is_same_v<Answer, v1::LeaseSomeResponse>) {
    leases_from(message, 2);
  } else if constexpr (std::is_same_v<Answer, v1::NewerWeightsResponse>) {
    if (message.has_weights()) from_proto(message.weights());
  } else if constexpr (std::is_same_v<Answer, v1::AwaitBroadcastResponse>) {
    if (message.has_call()) from_proto(message.call());
  } else if constexpr (std::is_same_v<Answer, v1::CheckpointsResponse>) {
    list_from<CheckpointRecord>("checkpoints", message.checkpoints());
  } else if constexpr (std::is_same_v<Answer, v1::BatchPart> ||
                       std::is_same_v<Answer, v1::EvaluationPart>) {
    from_parts({message});
  } else {
    from_proto(message);
  }
  return true;
}

constexpr std::array<bool (*)(const RpcServices&, Bytes), 41> kKinds = {
    request<&RpcServices::worker, v1::JoinRequest, v1::JoinResponse>,
    request<&RpcServices::worker, v1::HeartbeatRequest, v1::HeartbeatResponse>,
    request<&RpcServices::worker, v1::LeaveRequest, v1::LeaveResponse>,
    poll<v1::LeaseRequest>,
    request<&RpcServices::worker, v1::CompleteRequest, v1::CompleteResponse>,
    request<&RpcServices::learner, v1::StageProgressRequest, v1::StageProgressResponse>,
    request<&RpcServices::learner, v1::CheckpointsRequest, v1::CheckpointsResponse>,
    request<&RpcServices::learner, v1::BeginStageRequest, v1::StageProgressResponse>,
    request<&RpcServices::learner, v1::FinishStageRequest, v1::FinishStageResponse>,
    request<&RpcServices::learner, v1::SetFactRequest, v1::SetFactResponse>,
    request<&RpcServices::learner, v1::RecordCheckpointRequest, v1::RecordCheckpointResponse>,
    request<&RpcServices::learner, v1::ForgetCheckpointRequest, v1::ForgetCheckpointResponse>,
    request<&RpcServices::learner, v1::CommitRowsRequest, v1::CommitResponse>,
    request<&RpcServices::learner, v1::HasBatchRequest, v1::HasBatchResponse>,
    request<&RpcServices::learner, v1::OpenStepRequest, v1::OpenStepResponse>,
    poll<v1::WaitBatchRequest>,
    request<&RpcServices::learner, v1::CommitStepRequest, v1::CommitResponse>,
    request<&RpcServices::learner, v1::OpenEvaluationRequest, v1::OpenEvaluationResponse>,
    poll<v1::WaitEvaluationRequest>,
    request<&RpcServices::supervisor, v1::StatusRequest, v1::StatusResponse>,
    request<&RpcServices::supervisor, v1::ReportDeathRequest, v1::ReportDeathResponse>,
    request<&RpcServices::supervisor, v1::EndRunRequest, v1::EndRunResponse>,
    answer<v1::JoinResponse>,
    answer<v1::LeaseResponse>,
    answer<v1::CheckpointsResponse>,
    answer<v1::BatchPart>,
    answer<v1::EvaluationPart>,
    answer<v1::StatusResponse>,
    poll<v1::NewerWeightsRequest>,
    answer<v1::NewerWeightsResponse>,
    request<&RpcServices::worker, v1::HeartbeatAllRequest, v1::HeartbeatAllResponse>,
    poll<v1::LeaseSomeRequest>,
    request<&RpcServices::worker, v1::CompleteAllRequest, v1::CompleteResponse>,
    answer<v1::LeaseSomeResponse>,
    request<&RpcServices::broadcasts, v1::OpenBroadcastRequest, v1::OpenBroadcastResponse>,
    request<&RpcServices::broadcasts, v1::StartBroadcastRequest, v1::StartBroadcastResponse>,
    request<&RpcServices::broadcasts, v1::CloseBroadcastRequest, v1::CloseBroadcastResponse>,
    poll<v1::WatchBroadcastRequest>,
    poll<v1::AwaitBroadcastRequest>,
    answer<v1::OpenBroadcastResponse>,
    answer<v1::AwaitBroadcastResponse>,
};

}  // namespace

size_t message_kinds() {
  return kKinds.size();
}

bool try_bytes(const RpcServices& services, size_t kind, Bytes bytes) {
  adopt_library_logs();
  return kKinds.at(kind)(services, bytes);
}

}  // namespace praetor::rpc
