#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "actors/controller/controller.h"
#include "core/base/error.h"
#include "core/metrics/metrics_writer.h"

namespace praetor {

namespace {

/// Mean score, and fraction that satisfies its constraints, by task.
MetricList task_metrics(const std::vector<const Score*>& scores) {
  struct Sums {
    double score = 0, satisfied = 0;
    int64_t count = 0, constrained = 0;
  };
  std::map<std::string, Sums> tasks;
  for (const Score* score : scores) {
    if (score->task.empty()) continue;
    Sums& sums = tasks[score->task];
    sums.score += *score->score;
    ++sums.count;
    if (!score->satisfied) continue;
    ++sums.constrained;
    sums.satisfied += *score->satisfied ? 1 : 0;
  }
  MetricList out;
  for (const auto& [name, sums] : tasks) {
    const auto count = static_cast<double>(sums.count);
    out.emplace_back("task/" + name + "/samples", count);
    out.emplace_back("task/" + name + "/mean", sums.score / count);
    if (sums.constrained > 0) {
      out.emplace_back("task/" + name + "/satisfied",
                       sums.satisfied / static_cast<double>(sums.constrained));
    }
  }
  return out;
}

/// Figures of the measured voice's samples; of the others' only the mean score.
MetricList batch_metrics(const ClosedBatch& batch, int64_t rows) {
  double sum = 0, squares = 0, length = 0, finished = 0, others = 0, staleness = 0;
  int64_t stalest = 0;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  std::vector<PartCounters> parts;  // in the order in which they are met
  std::vector<const Score*> scores;
  double satisfied = 0, constrained = 0;
  const auto n =
      static_cast<double>(std::ranges::count_if(batch.samples, [&](const ScoredSample& sample) {
        return sample.rollout.voice == batch.measured_voice;
      }));
  for (const ScoredSample& sample : batch.samples) {
    const double score = *sample.score.score.score;
    const int64_t behind = batch.step - 1 - sample.rollout.weight_version;
    staleness += static_cast<double>(behind);
    stalest = std::max(stalest, behind);
    if (sample.rollout.voice != batch.measured_voice) {
      others += score;
      continue;
    }
    if (sample.score.score.satisfied) {
      constrained += 1;
      satisfied += *sample.score.score.satisfied ? 1 : 0;
    }
    sum += score;
    squares += score * score;
    low = std::min(low, score);
    high = std::max(high, score);
    length += static_cast<double>(sample.rollout.behavior_logprobs.size());
    finished += sample.rollout.finish == FinishReason::kStop ? 1 : 0;
    scores.push_back(&sample.score.score);
    for (const PartScore& part : sample.score.score.parts) {
      if (std::ranges::find(parts, part.name, &PartCounters::name) == parts.end())
        parts.push_back({.name = part.name});
    }
    count_parts(sample.score.score.parts, parts);
  }
  const double mean = sum / n;
  MetricList out{{"reward/mean", mean},
                 {"reward/std", std::sqrt(std::max(0.0, squares / n - mean * mean))},
                 {"reward/min", low},
                 {"reward/max", high}};
  for (auto& [name, value] : part_metrics(parts)) {
    if (name.starts_with("reward/")) out.emplace_back(name, value);
  }
  const MetricList tasks = task_metrics(scores);
  out.insert(out.end(), tasks.begin(), tasks.end());
  if (constrained > 0) out.emplace_back("reward/satisfied", satisfied / constrained);
  const double rest_of_voices = static_cast<double>(batch.samples.size()) - n;
  if (rest_of_voices > 0) out.emplace_back("reward/others_mean", others / rest_of_voices);
  int64_t dropped = 0;
  for (const auto& [why, ids] : batch.dropped) dropped += static_cast<int64_t>(ids.size());
  const MetricList rest{
      {"rollout/response_length", length / n},
      {"rollout/truncated", 1 - finished / n},
      {"rollout/finished", finished / n},
      {"staleness/mean", staleness / static_cast<double>(batch.samples.size())},
      {"staleness/max", static_cast<double>(stalest)},
      {"data/epoch", static_cast<double>(batch.end_ordinal) / static_cast<double>(rows)},
      {"data/consumed", static_cast<double>(batch.end_ordinal)},
      {"data/dropped", static_cast<double>(dropped)}};
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

}  // namespace

StepBatch ClosedBatch::slice(Slice slice, int64_t rows) const {
  const auto count = static_cast<int64_t>(samples.size());
  StepBatch out{
      .step = step,
      .total_samples = count,
      .samples = {samples.begin() + slice.begin(count), samples.begin() + slice.end(count)},
      .replayed = replayed,
      .metrics = batch_metrics(*this, rows)};
  for (auto& [name, value] : part_metrics(parts)) {
    if (name.starts_with("judge/")) out.circumstances.emplace_back(name, value);
  }
  return out;
}

ClosedBatch load_batch(const Ledger& ledger, const OnlinePlan& plan, const BatchRecord& record) {
  const auto stage = static_cast<int32_t>(plan.stage);
  const auto manifest = nlohmann::json::parse(record.manifest);
  ClosedBatch batch{.step = record.step,
                    .first_ordinal = manifest.at("first_ordinal").get<int64_t>(),
                    .end_ordinal = manifest.at("end_ordinal").get<int64_t>(),
                    .replayed = true,
                    .measured_voice = plan.measured_voice()};
  for (const SampleId& id : record.samples) {
    auto rollout = ledger.rollout(stage, id);
    auto score = ledger.score(stage, id);
    PRAETOR_CHECK(rollout && score,
                  "sample ",
                  id.ordinal,
                  "/",
                  id.sample,
                  " of a recorded batch has no payload");
    batch.samples.push_back({std::move(*rollout), std::move(*score)});
  }
  // Its metrics count them, as they did when it was closed.
  for (const SampleState& state : ledger.samples(stage, batch.first_ordinal, batch.end_ordinal)) {
    if (state.drop_reason) batch.dropped[*state.drop_reason].push_back(state.id);
  }
  return batch;
}

}  // namespace praetor
