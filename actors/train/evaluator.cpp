#include "actors/train/evaluator.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "actors/train/experience_builder.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "reward/scorer.h"

namespace praetor {

namespace {

double mean(double sum, size_t count) {
  return count == 0 ? std::nan("") : sum / static_cast<double>(count);
}

}  // namespace

Evaluation evaluate_prompts(const std::vector<Prompt>& prompts,
                            int64_t count,
                            const OnlinePlan& plan,
                            Generator& generator,
                            Scorer& scorer) {
  const size_t wanted = std::min(prompts.size(), static_cast<size_t>(count));
  std::vector<GenerationRequest> requests;
  for (size_t i = 0; i < wanted; ++i) {
    requests.push_back({.prompt = prompts[i].tokens,
                        .params = plan.params,
                        .key = {.job_seed = plan.job_seed,
                                .stage = plan.stage,
                                .prompt_ordinal = i,
                                .purpose = Purpose::kEvaluation}});
  }
  std::vector<Generation> made(wanted);
  generator.generate(requests, [&](Generation&& generation) {
    const auto index = static_cast<size_t>(generation.request);
    made[index] = std::move(generation);
    return true;
  });

  std::vector<Sample> texts;
  for (size_t i = 0; i < wanted; ++i) {
    texts.push_back({.prompt = prompts[i].text,
                     .response = made[i].text,
                     .metadata = prompts[i].metadata,
                     .response_tokens = static_cast<int64_t>(made[i].tokens.size()),
                     .finished = made[i].finish == FinishReason::kStop});
  }
  // The training's own counts of the parts are not mixed with those of an evaluation.
  const std::vector<Score> scores = scorer.score(texts);
  scorer.reset_counters();

  Evaluation out;
  StepBatch batch;
  double score_sum = 0, length_sum = 0, finished = 0;
  size_t scored = 0;
  std::map<std::string, std::pair<double, size_t>> parts;
  for (size_t i = 0; i < wanted; ++i) {
    for (const PartScore& part : scores[i].parts) {
      if (!part.score) continue;
      parts[part.name].first += *part.score;
      parts[part.name].second += 1;
    }
    length_sum += static_cast<double>(made[i].tokens.size());
    finished += texts[i].finished ? 1 : 0;
    out.samples.push_back({prompts[i].text, made[i].text, scores[i]});
    if (!scores[i].score) continue;
    score_sum += *scores[i].score;
    ++scored;
    ScoredSample sample;
    sample.rollout.id = {static_cast<int64_t>(i), 0};
    sample.rollout.tokens = prompts[i].tokens;
    sample.rollout.prompt_length = static_cast<int64_t>(prompts[i].tokens.size());
    sample.rollout.tokens.insert(
        sample.rollout.tokens.end(), made[i].tokens.begin(), made[i].tokens.end());
    sample.rollout.behavior_logprobs = std::move(made[i].behavior_logprobs);
    sample.rollout.finish = made[i].finish;
    sample.score.score = scores[i];
    batch.samples.push_back(std::move(sample));
  }
  out.experience = make_experience(batch);
  out.mean_score = mean(score_sum, scored);
  out.metrics = {{"eval/score", out.mean_score},
                 {"eval/response_length", mean(length_sum, wanted)},
                 {"eval/finished", mean(finished, wanted)},
                 {"eval/unscored", static_cast<double>(wanted - scored)}};
  for (const auto& [name, sum] : parts)
    out.metrics.emplace_back("eval/" + name + "/mean", mean(sum.first, sum.second));
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
