#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/config/yaml_reader.h"
#include "core/data/sample.h"
#include "reward/scorer_service.h"
#include "reward/verdict_cache.h"

namespace praetor {

/// A part of kind "external" that names an address instead of a command.
struct ExternalServiceConfig {
  std::string address;     ///< HOST:PORT
  int64_t batch = 32;      ///< samples of one call at most
  double threshold = 0.5;  ///< lowest score that passes where the service does not say
  /// Reads and checks the part's own keys. Unknown keys are the caller's to reject.
  static ExternalServiceConfig from_yaml(YamlReader& in);
};

/// Scores samples by a service of the user's, in batches. The same sample gets the same verdict if
/// the service sees to it; verdicts are kept under the version that it names. One thread at a time.
class ExternalService {
 public:
  struct Limits {
    std::chrono::milliseconds timeout;  ///< of one call
    int64_t retries = 0;                ///< further calls for samples without a verdict
    int threads = 1;                    ///< calls at once
  };
  /// A sample and where its result goes; both borrowed.
  struct Item {
    const Sample* sample = nullptr;
    PartScore* out = nullptr;
  };
  ExternalService(ExternalServiceConfig config, std::unique_ptr<ScorerService> service);

  /// Fills score, verdict, reason, error, latency_ms (of the calls that a sample was in), cached
  /// and retries of every item; what fails is the error of its samples. Texts are UTF-8.
  /// @param part  the place that names the part in `cache`
  void score(std::span<const Item> items, const Limits& limits, size_t part, VerdictCache& cache);

 private:
  bool meet(std::span<const Item> items, const Limits& limits);
  void ask(std::span<const Item> items,
           std::chrono::milliseconds timeout,
           size_t part,
           VerdictCache& cache) const;
  Verdict verdict_of(const ScorerAnswer& answer) const;
  std::string missing(const ScorerReply& reply) const;

  const ExternalServiceConfig config_;
  const std::unique_ptr<ScorerService> service_;
  ScorerIdentity identity_;  ///< as it said last; empty before
};

}  // namespace praetor
