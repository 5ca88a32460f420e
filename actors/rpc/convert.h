#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "actors/controller/broadcasts.h"
#include "actors/controller/services.h"
#include "praetor/v1/broadcast.pb.h"
#include "praetor/v1/common.pb.h"
#include "praetor/v1/learner.pb.h"
#include "praetor/v1/supervisor.pb.h"
#include "praetor/v1/worker.pb.h"

namespace praetor::rpc {

/// Structs to messages and back. What `from_proto` returns is sound in itself: enumerators are
/// known, sizes and counts lie within their bounds, vectors that belong together have one length,
/// scores are finite. Anything else throws InvalidArgument whose message begins with the field:
/// "rollouts[3].generation.model_logprobs: 4 values for 5 tokens".
/// Log-probabilities pass as they are, NaN included: they are a measurement.

/// Most items of any list in a message, and most tokens of a sequence.
constexpr int64_t kMaxItems = int64_t{1} << 20;
constexpr int64_t kMaxTokens = int64_t{1} << 24;
/// Most bytes of a name of ours.
constexpr size_t kMaxName = 256;
constexpr size_t kMaxPath = 4096;

v1::LeaseKind to_proto(LeaseKind kind);
LeaseKind from_proto(v1::LeaseKind kind);
v1::Purpose to_proto(Purpose purpose);
Purpose from_proto(v1::Purpose purpose);
v1::FinishReason to_proto(FinishReason reason);
FinishReason from_proto(v1::FinishReason reason);
v1::Role to_proto(Role role);
Role from_proto(v1::Role role);
v1::Orders to_proto(Orders orders);
Orders from_proto(v1::Orders orders);
v1::VoiceKind to_proto(VoiceKind kind);
VoiceKind from_proto(v1::VoiceKind kind);
v1::StepOutcome to_proto(StepOutcome outcome);
StepOutcome from_proto(v1::StepOutcome outcome);

void to_proto(const SampleId& from, v1::SampleId* to);
SampleId from_proto(const v1::SampleId& from);
void to_proto(const WeightVersion& from, v1::WeightVersion* to);
WeightVersion from_proto(const v1::WeightVersion& from);
void to_proto(const Publication& from, v1::Publication* to);
Publication from_proto(const v1::Publication& from);
void to_proto(const Voice& from, v1::Voice* to);
Voice from_proto(const v1::Voice& from);
void to_proto(const SamplingParams& from, v1::SamplingParams* to);
SamplingParams from_proto(const v1::SamplingParams& from);
void to_proto(const Generation& from, v1::Generation* to);
Generation from_proto(const v1::Generation& from);
void to_proto(const Sample& from, v1::Sample* to);
Sample from_proto(const v1::Sample& from);
void to_proto(const Score& from, v1::Score* to);
Score from_proto(const v1::Score& from);
void to_proto(const MemberInfo& from, v1::MemberInfo* to);
MemberInfo from_proto(const v1::MemberInfo& from);
void to_proto(const RolloutRecord& from, v1::RolloutRecord* to);
RolloutRecord from_proto(const v1::RolloutRecord& from);
void to_proto(const ScoreRecord& from, v1::ScoreRecord* to);
ScoreRecord from_proto(const v1::ScoreRecord& from);

void to_proto(const Admission& from, v1::JoinResponse* to);
Admission from_proto(const v1::JoinResponse& from);
void to_proto(const Heartbeat& from, v1::HeartbeatRequest* to);
Heartbeat from_proto(const v1::HeartbeatRequest& from);
void to_proto(const LeaseRequest& from, v1::LeaseRequest* to);
LeaseRequest from_proto(const v1::LeaseRequest& from);
void to_proto(const Lease& from, v1::Lease* to);
Lease from_proto(const v1::Lease& from);
/// Of each of `requests` requests.
std::vector<std::optional<Lease>> leases_from(const v1::LeaseSomeResponse& from, size_t requests);
void to_proto(const Completion& from, v1::CompleteRequest* to);
Completion from_proto(const v1::CompleteRequest& from);
void to_proto(const RolloutResult& from, v1::RolloutResult* to);
void to_proto(const ScoreResult& from, v1::ScoreResult* to);

void to_proto(const StageProgress& from, v1::StageProgressResponse* to);
StageProgress from_proto(const v1::StageProgressResponse& from);
void to_proto(const CheckpointRecord& from, v1::CheckpointRecord* to);
CheckpointRecord from_proto(const v1::CheckpointRecord& from);
void to_proto(const StepRecord& from, v1::StepRecord* to);
StepRecord from_proto(const v1::StepRecord& from);
void to_proto(const RowStep& from, v1::CommitRowsRequest* to);  ///< all but the stage
RowStep from_proto(const v1::CommitRowsRequest& from);
void to_proto(const ScoredSample& from, v1::ScoredSample* to);
ScoredSample from_proto(const v1::ScoredSample& from);
Slice from_proto(const v1::WaitBatchRequest& from);

/// A batch in parts of about `part_bytes`, at least one.
std::vector<v1::BatchPart> to_parts(const StepBatch& batch, int64_t part_bytes);
StepBatch from_parts(const std::vector<v1::BatchPart>& parts);
std::vector<v1::EvaluationPart> to_parts(const EvaluationBatch& batch, int64_t part_bytes);
EvaluationBatch from_parts(const std::vector<v1::EvaluationPart>& parts);

void to_proto(const OpenBroadcast& from, v1::OpenBroadcastRequest* to);
OpenBroadcast from_proto(const v1::OpenBroadcastRequest& from);
void to_proto(const OpenedBroadcast& from, v1::OpenBroadcastResponse* to);
OpenedBroadcast from_proto(const v1::OpenBroadcastResponse& from);
/// Without rank and members, which the controller says.
void to_proto(const BroadcastCall& from, v1::StartBroadcastRequest* to);
BroadcastCall from_proto(const v1::StartBroadcastRequest& from);
void to_proto(const BroadcastCall& from, v1::BroadcastCall* to);
BroadcastCall from_proto(const v1::BroadcastCall& from);
void to_proto(const BroadcastNumber& from, v1::BroadcastNumber* to);
BroadcastNumber from_proto(const v1::BroadcastNumber& from);
void to_proto(const AwaitBroadcast& from, v1::AwaitBroadcastRequest* to);
AwaitBroadcast from_proto(const v1::AwaitBroadcastRequest& from);

void to_proto(const RunStatus& from, v1::StatusResponse* to);
RunStatus from_proto(const v1::StatusResponse& from);

}  // namespace praetor::rpc
