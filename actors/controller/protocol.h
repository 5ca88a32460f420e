#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/data/sample.h"
#include "core/ledger/records.h"
#include "core/model/generator.h"

namespace praetor {

/// What passes between the controller and its workers. Plain values: the colocated run hands them
/// over in one process, separate roles send the same over the wire.

/// One response to generate, with its prompt.
struct GenerateItem {
  SampleId id;
  std::vector<int64_t> prompt;
};

/// One finished response to score, as text.
struct ScoreItem {
  SampleId id;
  Sample sample;
};

/// Work handed to one worker until a deadline; what it has not completed then goes to another.
struct Lease {
  int64_t id = 0;
  LeaseKind kind = LeaseKind::kGenerate;
  uint32_t stage = 0;          ///< index of the stage in the job
  int64_t weight_version = 0;  ///< step of the weights to generate with
  uint64_t job_seed = 0;
  SamplingParams params;               ///< generate
  std::vector<GenerateItem> generate;  ///< in sample order
  std::vector<ScoreItem> score;        ///< in sample order
};

struct RolloutResult {
  SampleId id;
  int64_t weight_version = 0;
  Generation generation;
};

struct ScoreResult {
  SampleId id;
  Score score;
};

/// The verbs a worker has. Every one may be repeated: a result that is already recorded is ignored.
class ControllerService {
 public:
  virtual ~ControllerService() = default;
  /// Up to `max_items` items, or nothing when there is no work of this kind now.
  virtual std::optional<Lease> lease(const std::string& worker,
                                     LeaseKind kind,
                                     int64_t max_items) = 0;
  /// Hands in some results of a lease, as they finish; the lease ends with its last item.
  virtual void complete(int64_t lease, std::vector<RolloutResult> results) = 0;
  virtual void complete(int64_t lease, std::vector<ScoreResult> results) = 0;
};

}  // namespace praetor
