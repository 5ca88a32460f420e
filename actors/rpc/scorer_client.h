#pragma once

#include <memory>
#include <string>

#include "actors/rpc/tls.h"
#include "reward/scorer_service.h"

namespace praetor {

/// A scorer of the user's, asked over gRPC (proto/praetor/v1/scorer.proto). A call waits for the
/// connection until its timeout, so that a service that is started again is found. With an identity
/// (the user's own certificates: the run's own authority can know no service of theirs) an address
/// that is not loopback is called with mutual TLS; without one the wire is plain text. It carries
/// no secret. Any thread.
class ScorerClient final : public ScorerService {
 public:
  /// @param address  HOST:PORT
  explicit ScorerClient(const std::string& address,
                        std::shared_ptr<const TlsIdentity> tls = nullptr);
  ~ScorerClient() override;
  /// For Scorer::Options.
  static std::unique_ptr<ScorerService> connect(const std::string& address);
  static ConnectScorer connector(std::shared_ptr<const TlsIdentity> tls);

  /// @throws TimeoutError; TemporaryError when nobody answers; RefusedError when the server there
  /// offers no scorer; DataError for an answer that makes no sense; RpcError for another failure
  ScorerIdentity describe(std::chrono::milliseconds timeout) override;
  ScorerReply score(std::span<const Sample* const> samples,
                    std::chrono::milliseconds timeout) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace praetor
