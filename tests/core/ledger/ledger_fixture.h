#pragma once

#include <string>
#include <vector>

#include "core/base/str.h"
#include "core/ledger/ledger.h"

namespace praetor::testing {

/// A rollout whose content follows from its id, so that a test can tell whether it came back whole.
inline RolloutRecord make_rollout(int64_t ordinal, int32_t sample, int64_t response = 5) {
  RolloutRecord out;
  out.id = {ordinal, sample};
  out.prompt_length = 3;
  for (int64_t i = 0; i < 3 + response; ++i)
    out.tokens.push_back((ordinal * 31 + sample * 7 + i) % 512);
  for (int64_t i = 0; i < response; ++i) {
    out.behavior_logprobs.push_back(-0.25f * static_cast<float>(i) - static_cast<float>(sample));
  }
  out.text = str("text of ", ordinal, "/", sample);
  out.finish = FinishReason::kStop;
  out.weight_version = ordinal / 4;
  out.worker = "rollout-0";
  return out;
}

inline ScoreRecord make_score(int64_t ordinal, int32_t sample, double score) {
  ScoreRecord out;
  out.id = {ordinal, sample};
  out.score.score = score;
  PartScore part;
  part.name = "length";
  part.score = score;
  out.score.parts.push_back(part);
  out.worker = "reward-0";
  return out;
}

/// Issues prompts [from, to) with `samples` each.
inline void issue(Ledger& ledger, int32_t stage, int64_t from, int64_t to, int32_t samples) {
  std::vector<PromptRecord> prompts;
  for (int64_t i = from; i < to; ++i) prompts.push_back({i, i / 10, i % 10, samples});
  ledger.issue_prompts(stage, prompts);
}

/// Rolls out and scores prompts [from, to).
inline void complete(Ledger& ledger, int32_t stage, int64_t from, int64_t to, int32_t samples) {
  std::vector<RolloutRecord> rollouts;
  std::vector<ScoreRecord> scores;
  for (int64_t i = from; i < to; ++i) {
    for (int32_t k = 0; k < samples; ++k) {
      rollouts.push_back(make_rollout(i, k));
      scores.push_back(make_score(i, k, 0.5 * static_cast<double>(i) + k));
    }
  }
  ledger.record_rollouts(stage, rollouts);
  ledger.record_scores(stage, scores);
}

inline BatchRecord make_batch(int64_t step, int64_t from, int64_t to, int32_t samples) {
  BatchRecord out;
  out.step = step;
  for (int64_t i = from; i < to; ++i) {
    for (int32_t k = 0; k < samples; ++k) out.samples.push_back({i, k});
  }
  out.manifest = R"({"ranks":1})";
  return out;
}

inline StepRecord make_step(int64_t step, const std::string& digest = "d") {
  StepRecord out;
  out.step = step;
  out.loss_digest = str(digest, step);
  out.gradient_digest = str("g", step);
  out.metrics = R"({"policy/loss":0.5})";
  return out;
}

/// Two steps of two prompts with two samples each, all trained.
inline void two_steps(Ledger& ledger) {
  ledger.begin_stage(0, "ppo");
  issue(ledger, 0, 0, 4, 2);
  complete(ledger, 0, 0, 4, 2);
  for (int64_t step = 1; step <= 2; ++step) {
    ledger.record_batch(0, make_batch(step, 2 * (step - 1), 2 * step, 2));
    ledger.record_step(0, make_step(step));
  }
}

}  // namespace praetor::testing
