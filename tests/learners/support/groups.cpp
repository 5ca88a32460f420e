#include "tests/learners/support/groups.h"

#include <ATen/ATen.h>

#include <stdexcept>
#include <utility>

#include "core/base/text.h"
#include "tests/learners/support/finite_difference.h"

namespace praetor::testing {

std::unique_ptr<Algorithm> algorithm_from(const std::string& name, const std::string& yaml) {
  const auto document = YamlDocument::parse(yaml);
  auto out = make_algorithm(name, {document->root()});
  if (!document->errors().empty()) throw std::runtime_error(join(document->errors(), "\n"));
  return out;
}

Learner group_learner(std::unique_ptr<Algorithm> algorithm,
                      double learning_rate,
                      int64_t micro_batch_tokens) {
  LearnerConfig config;
  config.optimizer.learning_rate = learning_rate;
  config.micro_batch_tokens = micro_batch_tokens;
  config.max_new_tokens = 8;
  LearnerModels models;
  models.policy = tiny_policy();
  return Learner(config, std::move(algorithm), std::move(models));
}

std::vector<Roll> group_rolls() {
  return {{{1, 2}, {3, 4, 5}, 1.0, true},
          {{1, 2}, {6}, -0.5, true},
          {{1, 2}, {7, 8, 9, 2, 4}, 0.25, false},
          {{1, 2}, {}, 0.75, true},
          {{4}, {5, 5}, 2.0, true},
          {{4}, {3, 3, 3, 3}, 0.0, true},
          {{4}, {10}, 1.0, true},
          {{4}, {9, 8}, 0.5, false}};
}

Experience make_groups(const std::vector<Roll>& rolls,
                       int64_t samples,
                       const Transformer& policy,
                       const Algorithm& algorithm) {
  const SamplePlan plan = algorithm.sample_plan();
  const int64_t others = plan.total_samples() - plan.samples_per_prompt;
  Experience out = make_experience(rolls, policy);
  out.voice.clear();
  for (size_t i = 0; i < rolls.size(); ++i) {
    const auto k = static_cast<int64_t>(i);
    out.prompt_ordinal[i] = k / samples;
    out.sample_index[i] = static_cast<int32_t>(k % samples);
    out.voice.push_back(k % samples >= samples - others ? 1 : 0);
  }
  return out;
}

Experience scored(const std::vector<double>& scores,
                  int64_t samples,
                  std::vector<int64_t> lengths) {
  if (lengths.empty()) lengths.assign(scores.size(), 1);
  Experience out;
  out.offsets.push_back(0);
  std::vector<int64_t> sequence_of, tokens;
  for (size_t i = 0; i < scores.size(); ++i) {
    const auto k = static_cast<int64_t>(i);
    out.offsets.push_back(out.offsets.back() + 1 + lengths[i]);
    for (int64_t t = 0; t <= lengths[i]; ++t) tokens.push_back(10 * k + t);
    for (int64_t t = 0; t < lengths[i]; ++t) sequence_of.push_back(k);
    out.prompt_lengths.push_back(1);
    out.finished.push_back(true);
    out.prompt_ordinal.push_back(k / samples);
    out.sample_index.push_back(static_cast<int32_t>(k % samples));
  }
  out.tokens = ids(tokens);
  out.sequence_of = ids(sequence_of);
  out.score = vec(scores);
  out.behavior_logprob = at::full({static_cast<int64_t>(sequence_of.size())}, -1.0, at::kDouble);
  out.proximal_logprob = out.reference_logprob = out.behavior_logprob;
  return out;
}

MicroBatch whole_batch(const Experience& e, const Batch& batch, const at::Tensor& logprob) {
  MicroBatch out;
  out.sequences = e.sequences();
  out.sequence_of = e.sequence_of;
  out.mask = batch.mask;
  out.logprob = logprob;
  out.entropy = at::zeros_like(e.proximal_logprob);
  out.behavior_logprob = e.behavior_logprob;
  out.proximal_logprob = e.proximal_logprob;
  out.reference_logprob = e.reference_logprob;
  out.advantage = e.advantage;
  const at::Tensor lengths = segment_sum(batch.mask.to(at::kLong), e.sequence_of, e.sequences());
  out.denominators.tokens = batch.mask.sum().item<double>();
  out.denominators.sequences = lengths.gt(0).sum().item<double>();
  return out;
}

double loss_gradient_error(Algorithm& algorithm) {
  Experience e = scored({1.0, -0.5, 0.25, 2.0, 0.0, 1.5}, 3, {2, 1, 3, 2, 4, 1});
  e.finished[2] = false;
  if (!algorithm.sample_plan().others.empty()) e.voice = {0, 0, 1, 0, 0, 1};
  const at::Tensor wave = at::arange(e.sequence_of.numel(), at::kDouble);
  e.proximal_logprob = -1.5 + at::sin(wave);
  e.behavior_logprob = e.proximal_logprob + 0.1 * at::cos(3 * wave);
  e.reference_logprob = e.proximal_logprob + 0.3 * at::cos(wave);
  const Batch batch = algorithm.build_batch(e, {.max_new_tokens = 4});
  const at::Tensor at_point = e.proximal_logprob + 0.17 * at::sin(2 * wave + 1);
  return gradient_error(
      [&](const at::Tensor& logprob) {
        return algorithm.loss(whole_batch(e, batch, logprob)).loss;
      },
      at_point);
}

}  // namespace praetor::testing
