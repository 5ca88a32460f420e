#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/data/sample.h"

namespace praetor {

/// Who answers behind an address.
struct ScorerIdentity {
  std::string name;     ///< for people
  std::string version;  ///< another one whenever the same sample may get another verdict
};

/// What it says of one sample.
struct ScorerAnswer {
  std::optional<double> score;    ///< absent exactly when `error` is set
  std::optional<bool> satisfied;  ///< absent: it leaves that to a threshold
  std::string reason;
  std::string error;
};

struct ScorerReply {
  std::string version;  ///< of who answered
  /// As the samples of the call; empty where there is no answer.
  std::vector<std::optional<ScorerAnswer>> answers;
};

/// A scorer of the user's that listens at an address (proto/praetor/v1/scorer.proto). Over the wire
/// it is a ScorerClient of actors/rpc; this folder knows no gRPC. Any thread.
class ScorerService {
 public:
  virtual ~ScorerService() = default;
  /// Either call: @throws TimeoutError; another praetor::Error naming the address when nobody
  /// answers there, or what answers is no scorer.
  virtual ScorerIdentity describe(std::chrono::milliseconds timeout) = 0;
  virtual ScorerReply score(std::span<const Sample* const> samples,
                            std::chrono::milliseconds timeout) = 0;
};

/// Makes the connection to HOST:PORT; whether anybody listens there is found at the first call.
using ConnectScorer = std::function<std::unique_ptr<ScorerService>(const std::string& address)>;

}  // namespace praetor
