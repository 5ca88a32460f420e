#pragma once

#include <chrono>
#include <cstddef>
#include <string_view>
#include <vector>

#include "actors/rpc/convert.h"
#include "actors/rpc/server.h"

namespace praetor::rpc {

/// What a handler does between its check of the caller and its answer: convert, call, convert.
/// Nothing here knows gRPC. @throws what the conversion and the interface throw

void handle(WorkerService& service, const v1::JoinRequest& request, v1::JoinResponse* answer);
void handle(WorkerService& service,
            const v1::HeartbeatRequest& request,
            v1::HeartbeatResponse* answer);
void handle(WorkerService& service, const v1::LeaveRequest& request, v1::LeaveResponse* answer);
void handle(WorkerService& service,
            const v1::CompleteRequest& request,
            v1::CompleteResponse* answer);
void handle(WorkerService& service,
            const v1::HeartbeatAllRequest& request,
            v1::HeartbeatAllResponse* answer);
void handle(WorkerService& service,
            const v1::CompleteAllRequest& request,
            v1::CompleteResponse* answer);

void handle(LearnerService& service,
            const v1::StageProgressRequest& request,
            v1::StageProgressResponse* answer);
void handle(LearnerService& service,
            const v1::CheckpointsRequest& request,
            v1::CheckpointsResponse* answer);
void handle(LearnerService& service,
            const v1::BeginStageRequest& request,
            v1::StageProgressResponse* answer);
void handle(LearnerService& service,
            const v1::FinishStageRequest& request,
            v1::FinishStageResponse* answer);
void handle(LearnerService& service,
            const v1::SetFactRequest& request,
            v1::SetFactResponse* answer);
void handle(LearnerService& service,
            const v1::RecordCheckpointRequest& request,
            v1::RecordCheckpointResponse* answer);
void handle(LearnerService& service,
            const v1::ForgetCheckpointRequest& request,
            v1::ForgetCheckpointResponse* answer);
void handle(LearnerService& service,
            const v1::CommitRowsRequest& request,
            v1::CommitResponse* answer);
void handle(LearnerService& service,
            const v1::HasBatchRequest& request,
            v1::HasBatchResponse* answer);
void handle(LearnerService& service,
            const v1::OpenStepRequest& request,
            v1::OpenStepResponse* answer);
void handle(LearnerService& service,
            const v1::CommitStepRequest& request,
            v1::CommitResponse* answer);
void handle(LearnerService& service,
            const v1::OpenEvaluationRequest& request,
            v1::OpenEvaluationResponse* answer);

void handle(SupervisorService& service,
            const v1::StatusRequest& request,
            v1::StatusResponse* answer);
void handle(SupervisorService& service,
            const v1::ReportDeathRequest& request,
            v1::ReportDeathResponse* answer);
void handle(SupervisorService& service,
            const v1::EndRunRequest& request,
            v1::EndRunResponse* answer);

void handle(BroadcastService& service,
            const v1::OpenBroadcastRequest& request,
            v1::OpenBroadcastResponse* answer);
void handle(BroadcastService& service,
            const v1::StartBroadcastRequest& request,
            v1::StartBroadcastResponse* answer);
void handle(BroadcastService& service,
            const v1::CloseBroadcastRequest& request,
            v1::CloseBroadcastResponse* answer);

/// The long polls: the request's wait is cut to `most_wait`.
void handle(WorkerService& service,
            const v1::LeaseSomeRequest& request,
            std::chrono::milliseconds most_wait,
            v1::LeaseSomeResponse* answer);
void handle(WorkerService& service,
            const v1::LeaseRequest& request,
            std::chrono::milliseconds most_wait,
            v1::LeaseResponse* answer);
void handle(WorkerService& service,
            const v1::NewerWeightsRequest& request,
            std::chrono::milliseconds most_wait,
            v1::NewerWeightsResponse* answer);
void handle(BroadcastService& service,
            const v1::WatchBroadcastRequest& request,
            std::chrono::milliseconds most_wait,
            v1::WatchBroadcastResponse* answer);
void handle(BroadcastService& service,
            const v1::AwaitBroadcastRequest& request,
            std::chrono::milliseconds most_wait,
            v1::AwaitBroadcastResponse* answer);
/// Without parts: not ready within the wait.
std::vector<v1::BatchPart> handle(LearnerService& service,
                                  const v1::WaitBatchRequest& request,
                                  std::chrono::milliseconds most_wait);
std::vector<v1::EvaluationPart> handle(LearnerService& service,
                                       const v1::WaitEvaluationRequest& request,
                                       std::chrono::milliseconds most_wait);

/// Bytes of one part of a streamed batch, about.
constexpr int64_t kPartBytes = int64_t{4} << 20;

/// Kinds of message that `try_bytes` knows: every request, and every answer that is converted.
size_t message_kinds();
/// Takes the bytes as a message of kind `kind`: a request goes through its handler to `services`
/// (none null), an answer through the client's conversion. For the fuzzer and its test.
/// @return false when they are no such message @throws what the handler or the conversion throws
bool try_bytes(const RpcServices& services, size_t kind, std::string_view bytes);

}  // namespace praetor::rpc
