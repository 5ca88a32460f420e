#include "actors/rpc/broadcast_client.h"

#include "actors/rpc/channel.h"
#include "actors/rpc/fields.h"
#include "praetor/v1/broadcast.grpc.pb.h"

namespace praetor {

using rpc::from_proto;
using rpc::to_proto;
using std::chrono::milliseconds;
using Stub = v1::Broadcasts::Stub;

BroadcastClient::BroadcastClient(const RpcClientOptions& options)
    : channel_(std::make_unique<RpcChannel>(options)) {}
BroadcastClient::~BroadcastClient() = default;

OpenedBroadcast BroadcastClient::open_broadcast(const OpenBroadcast& asked) {
  v1::OpenBroadcastRequest request;
  to_proto(asked, &request);
  return from_proto(channel_->unary("Broadcasts.Open", &Stub::PrepareAsyncOpen, request));
}

void BroadcastClient::start_broadcast(const BroadcastCall& call) {
  v1::StartBroadcastRequest request;
  to_proto(call, &request);
  channel_->unary("Broadcasts.Start", &Stub::PrepareAsyncStart, request);
}

std::optional<std::string> BroadcastClient::watch_broadcast(const BroadcastNumber& number,
                                                            milliseconds wait) {
  v1::WatchBroadcastRequest request;
  to_proto(number, request.mutable_number());
  wait = RpcChannel::cut(wait);
  request.set_wait_ms(wait.count());
  const v1::WatchBroadcastResponse answer =
      channel_->unary("Broadcasts.Watch", &Stub::PrepareAsyncWatch, request, wait);
  if (!answer.lost().empty()) return answer.lost();
  channel_->pause_as_told("Broadcasts.Watch", answer.retry_after_ms(), wait);
  return std::nullopt;
}

void BroadcastClient::close_broadcast(const BroadcastNumber& number, const std::string& failure) {
  v1::CloseBroadcastRequest request;
  to_proto(number, request.mutable_number());
  request.set_failure(failure);
  channel_->unary("Broadcasts.Close", &Stub::PrepareAsyncClose, request);
}

std::optional<BroadcastCall> BroadcastClient::await_broadcast(const AwaitBroadcast& asked) {
  v1::AwaitBroadcastRequest request;
  to_proto(asked, &request);
  const milliseconds wait = RpcChannel::cut(asked.wait);
  request.set_wait_ms(wait.count());
  const v1::AwaitBroadcastResponse answer =
      channel_->unary("Broadcasts.Await", &Stub::PrepareAsyncAwait, request, wait);
  if (answer.has_call()) return from_proto(answer.call());
  channel_->pause_as_told("Broadcasts.Await", answer.retry_after_ms(), wait);
  return std::nullopt;
}

}  // namespace praetor
