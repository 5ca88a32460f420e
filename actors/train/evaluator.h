#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "actors/controller/services.h"
#include "core/metrics/metrics_writer.h"

namespace praetor {

/// One held-out prompt answered and scored.
struct EvaluatedSample {
  std::string prompt;
  std::string response;
  Score score;
};

struct Evaluation {
  std::vector<EvaluatedSample> samples;
  std::vector<ScoredSample> scored;  ///< those that have a score, for a KL to the reference
  double mean_score = 0;             ///< over the samples that have a score; NaN when none has
  MetricList metrics;  ///< eval/score, eval/<part>/mean, eval/response_length, eval/finished,
                       ///< eval/unscored
};

/// The figures of held-out prompts that were answered and scored.
Evaluation summarise_evaluation(EvaluationBatch batch);

/// Writes SAMPLES/STAGE/step-000010.jsonl: a line {"prompt","response","score","parts"} a sample.
/// @throws IoError
void write_samples(const std::filesystem::path& folder,
                   const std::string& stage,
                   int64_t step,
                   const std::vector<EvaluatedSample>& samples);

}  // namespace praetor
