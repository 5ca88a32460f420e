#include "actors/train/experience_builder.h"

#include <ATen/ops/tensor.h>

namespace praetor {

Experience make_experience(const std::vector<ScoredSample>& samples) {
  Experience experience;
  std::vector<int64_t> tokens, sequence_of;
  std::vector<float> logprobs, scores;
  experience.offsets.push_back(0);
  for (const ScoredSample& sample : samples) {
    const RolloutRecord& rollout = sample.rollout;
    const auto index = static_cast<int64_t>(experience.prompt_lengths.size());
    tokens.insert(tokens.end(), rollout.tokens.begin(), rollout.tokens.end());
    experience.offsets.push_back(static_cast<int64_t>(tokens.size()));
    experience.prompt_lengths.push_back(rollout.prompt_length);
    sequence_of.insert(sequence_of.end(), rollout.behavior_logprobs.size(), index);
    logprobs.insert(
        logprobs.end(), rollout.behavior_logprobs.begin(), rollout.behavior_logprobs.end());
    scores.push_back(static_cast<float>(*sample.score.score.score));
    experience.finished.push_back(rollout.finish == FinishReason::kStop);
    experience.prompt_ordinal.push_back(rollout.id.ordinal);
    experience.sample_index.push_back(rollout.id.sample);
    experience.weight_version.push_back(rollout.weight_version);
  }
  experience.tokens = at::tensor(tokens, at::kLong);
  experience.sequence_of = at::tensor(sequence_of, at::kLong);
  experience.behavior_logprob = at::tensor(logprobs, at::kFloat);
  experience.score = at::tensor(scores, at::kFloat);
  return experience;
}

}  // namespace praetor
