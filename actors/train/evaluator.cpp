#include "actors/train/evaluator.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/fs.h"

namespace praetor {

namespace {

double mean(double sum, size_t count) {
  return count == 0 ? std::nan("") : sum / static_cast<double>(count);
}

}  // namespace

Evaluation summarise_evaluation(EvaluationBatch batch) {
  Evaluation out;
  double score_sum = 0, length_sum = 0, finished = 0;
  const size_t count = batch.samples.size();
  std::map<std::string, std::pair<double, size_t>> parts, attributes;
  for (size_t i = 0; i < count; ++i) {
    ScoredSample& sample = batch.samples[i];
    const Score& score = sample.score.score;
    for (const PartScore& part : score.parts) {
      if (!part.score || part.not_applicable) continue;
      parts[part.name].first += *part.score;
      parts[part.name].second += 1;
      for (const AttributeScore& one : part.attributes) {
        attributes[part.name + "/" + one.name].first += one.value;
        attributes[part.name + "/" + one.name].second += 1;
      }
    }
    length_sum += static_cast<double>(sample.rollout.behavior_logprobs.size());
    finished += sample.rollout.finish == FinishReason::kStop ? 1 : 0;
    out.samples.push_back({batch.prompts[i], sample.rollout.text, score});
    if (!score.score) continue;
    score_sum += *score.score;
    out.scored.push_back(std::move(sample));
  }
  out.mean_score = mean(score_sum, out.scored.size());
  out.metrics = {{"eval/score", out.mean_score},
                 {"eval/response_length", mean(length_sum, count)},
                 {"eval/finished", mean(finished, count)},
                 {"eval/unscored", static_cast<double>(count - out.scored.size())}};
  for (const auto& [name, sum] : parts)
    out.metrics.emplace_back("eval/" + name + "/mean", mean(sum.first, sum.second));
  for (const auto& [name, sum] : attributes)
    out.metrics.emplace_back("eval/" + name, mean(sum.first, sum.second));
  return out;
}

void write_samples(const std::filesystem::path& folder,
                   const std::string& stage,
                   int64_t step,
                   const std::vector<EvaluatedSample>& samples) {
  std::string text;
  for (const EvaluatedSample& sample : samples) {
    nlohmann::ordered_json parts = nlohmann::ordered_json::object();
    for (const PartScore& part : sample.score.parts) {
      parts[part.name] = part.score ? nlohmann::ordered_json(*part.score)
                                    : nlohmann::ordered_json({{"error", part.error}});
    }
    const nlohmann::ordered_json row = {
        {"prompt", sample.prompt},
        {"response", sample.response},
        {"score",
         sample.score.score ? nlohmann::ordered_json(*sample.score.score)
                            : nlohmann::ordered_json(nullptr)},
        {"parts", parts}};
    text += row.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
  std::error_code failure;
  std::filesystem::create_directories(folder / stage, failure);
  if (failure) throw IoError("cannot make ", (folder / stage).string(), ": ", failure.message());
  char name[32];
  std::snprintf(name, sizeof(name), "step-%06ld.jsonl", static_cast<long>(step));
  write_file_atomic(folder / stage / name, text);
}

}  // namespace praetor
