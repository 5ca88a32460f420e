#include "tests/learners/support/tiny.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <stdexcept>
#include <string>

#include "core/model/ops.h"

namespace praetor::testing {
namespace {

ModelConfig tiny_config() {
  ModelConfig c;
  c.vocab_size = kTinyVocabulary;
  c.hidden_size = 16;
  c.intermediate_size = 24;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 4;
  c.max_positions = 32;
  c.initializer_range = 0.3;
  c.tie_embeddings = true;
  return c;
}

RandomStream stream(uint64_t seed) {
  return RandomStream({.job_seed = seed, .purpose = Purpose::kInitialise});
}

}  // namespace

std::unique_ptr<Transformer> tiny_policy(uint64_t seed, at::ScalarType dtype) {
  return std::make_unique<Transformer>(tiny_config(), stream(seed), dtype);
}

std::unique_ptr<ScalarModel> tiny_scalar(uint64_t seed, at::ScalarType dtype) {
  return std::make_unique<ScalarModel>(
      ScalarModel{Transformer(tiny_config(), stream(seed), dtype),
                  ScalarHead::make(16, stream(seed + 100), dtype)});
}

Experience make_experience(const std::vector<Roll>& rolls,
                           const Transformer& policy,
                           double temperature) {
  const at::NoGradGuard no_grad;
  std::vector<std::vector<int64_t>> sequences;
  std::vector<int64_t> sequence_of, rows, targets;
  std::vector<double> scores;
  Experience out;
  int64_t base = 0;
  for (size_t i = 0; i < rolls.size(); ++i) {
    std::vector<int64_t> all = rolls[i].prompt;
    for (const int64_t token : rolls[i].response) {
      rows.push_back(base + static_cast<int64_t>(all.size()) - 1);
      targets.push_back(token);
      sequence_of.push_back(static_cast<int64_t>(i));
      all.push_back(token);
    }
    base += static_cast<int64_t>(all.size());
    sequences.push_back(all);
    scores.push_back(rolls[i].score);
    out.prompt_lengths.push_back(static_cast<int64_t>(rolls[i].prompt.size()));
    out.finished.push_back(rolls[i].finished);
    out.prompt_ordinal.push_back(rolls[i].ordinal < 0 ? static_cast<int64_t>(i) : rolls[i].ordinal);
    out.sample_index.push_back(rolls[i].sample);
    out.voice.push_back(rolls[i].voice);
    out.satisfied.push_back(rolls[i].satisfied);
    out.task.push_back(rolls[i].task);
    out.preferences.push_back(rolls[i].preferences);
    out.weight_version.push_back(0);
  }
  const PackedTokens packed = pack(sequences);
  const auto longs = at::TensorOptions().dtype(at::kLong);
  out.tokens = packed.tokens;
  out.offsets = packed.offsets;
  out.sequence_of = at::tensor(sequence_of, longs);
  out.score = at::tensor(scores, at::TensorOptions().dtype(at::kFloat));
  out.behavior_logprob =
      targets.empty()
          ? at::empty({0})
          : ops::token_logprobs(policy.hidden(packed).index_select(0, at::tensor(rows, longs)),
                                policy.head(),
                                at::tensor(targets, longs),
                                temperature)
                .logprob;
  return out;
}

std::vector<Roll> mixed_rolls() {
  return {{{1, 2}, {3, 4, 5}, 1.0, true},
          {{1}, {6, 7, 8, 9, 2}, -0.5, false},
          {{1, 5, 2}, {4}, 0.25, true},
          {{1, 3}, {4, 4}, 2.0, true},
          {{1, 9, 8, 7}, {10, 0, 3, 2}, -1.0, true}};
}

Example make_example(const std::vector<int64_t>& prompt,
                     const std::vector<int64_t>& completion,
                     double margin) {
  Example out;
  out.tokens = prompt;
  out.tokens.insert(out.tokens.end(), completion.begin(), completion.end());
  out.target.assign(prompt.size(), 0);
  out.target.insert(out.target.end(), completion.size(), 1);
  out.margin = margin;
  return out;
}

at::Tensor flat_state(const Learner& learner, bool weights_only) {
  std::vector<at::Tensor> parts;
  for (const NamedTensor& t : learner.state()) {
    if (weights_only && t.name.starts_with("optimizer/")) continue;
    parts.push_back(t.tensor.detach().cpu().flatten().to(at::kDouble));
  }
  return at::cat(parts);
}

double cut_error(const std::function<at::Tensor(int64_t)>& weights_after) {
  const at::Tensor whole = weights_after(8192), cut = weights_after(1);
  return ((whole - cut).norm() / whole.norm()).item<double>();
}

double metric(const StepReport& report, const std::string& name) {
  for (const auto& [key, value] : report.metrics) {
    if (key == name) return value;
  }
  throw std::runtime_error("the report has no metric " + name);
}

}  // namespace praetor::testing
