#pragma once

#include <memory>
#include <string>

#include "reward/scorer_service.h"

namespace praetor {

/// A scorer of the user's, asked over gRPC (proto/praetor/v1/scorer.proto). A call waits for the
/// connection until its timeout, so that a service that is started again is found. The wire is not
/// encrypted and carries no secret. Any thread.
class ScorerClient final : public ScorerService {
 public:
  explicit ScorerClient(const std::string& address);  ///< HOST:PORT
  ~ScorerClient() override;
  /// For Scorer::Options.
  static std::unique_ptr<ScorerService> connect(const std::string& address);

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
