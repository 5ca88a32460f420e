#pragma once

#include <memory>

#include "actors/controller/broadcasts.h"
#include "actors/rpc/client.h"

namespace praetor {

/// BroadcastService, answered by an RpcServer; as the clients of client.h. A relay offers one to
/// its workers as it is.
class BroadcastClient final : public BroadcastService {
 public:
  explicit BroadcastClient(const RpcClientOptions& options);
  ~BroadcastClient() override;
  OpenedBroadcast open_broadcast(const OpenBroadcast& request) override;
  void start_broadcast(const BroadcastCall& call) override;
  std::optional<std::string> watch_broadcast(const BroadcastNumber& number,
                                             std::chrono::milliseconds wait) override;
  void close_broadcast(const BroadcastNumber& number, const std::string& failure) override;
  std::optional<BroadcastCall> await_broadcast(const AwaitBroadcast& request) override;

 private:
  std::unique_ptr<RpcChannel> channel_;
};

}  // namespace praetor
