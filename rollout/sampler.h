#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/random.h"
#include "core/model/generator.h"
#include "rollout/draw.h"
#include "rollout/processors/chain.h"

namespace praetor {

/// The distinct ids of a growing sequence, for the repetition penalty.
class SeenTokens {
 public:
  explicit SeenTokens(int64_t vocab_size) : seen_(static_cast<size_t>(vocab_size), false) {}
  void add(int64_t id);
  const std::vector<int64_t>& ids() const { return ids_; }  ///< in order of first occurrence

 private:
  std::vector<bool> seen_;
  std::vector<int64_t> ids_;
};

/// One token to draw. The n samples of a prompt draw their first tokens from one row of logits.
struct SampleRow {
  int64_t logits_row = 0;
  const SamplingParams* params = nullptr;
  SampleKey key;
  uint32_t position = 0;                 ///< of the token in the response, from 0
  const SeenTokens* seen = nullptr;      ///< needed when the repetition penalty is not 1
  ProcessorChain* processors = nullptr;  ///< needed when the parameters have any; no other row's
};

struct SampledToken {
  int64_t token = 0;
  float model_logprob = 0.0F;     ///< untempered
  float behavior_logprob = 0.0F;  ///< tempered, before penalty and truncation; untempered if greedy
  float sampled_logprob = 0.0F;   ///< in the distribution drawn from; 0 if greedy
  float kept_mass = 1.0F;         ///< share that truncation kept of what it was given
  std::vector<TopLogprob> top;    ///< the most likely tokens of the untempered model, when wanted
};

/// True when what is drawn from differs from what behavior_logprob measures.
bool reshapes(const SamplingParams& params);

/// Logits to tokens. The order of operations is fixed, and decides the token stream:
///
///   z = logits / temperature            float32
///   z_v = z_v > 0 ? z_v / penalty : z_v * penalty, for v in the prompt or the response
///   the processors, in the order of the parameters (processors/processor.h)
///   top-k, then top-p, then min-p (draw.h), u = uniform(key, position), inverse CDF
///
/// Temperature 0: the largest penalised and processed logit, of equal ones the lowest id;
/// truncation cannot change it. The penalty stands behind the temperature; transformers applies it
/// before, which is the same but for rounding, since dividing by a positive number keeps the sign.
/// Log-probabilities come from ops::log_softmax, as the learner's do. A token depends on its row
/// alone. One thread; rows are shared out over the tensor threads inside.
class Sampler {
 public:
  /// @param logits  [M,V] of the untempered model, float32
  /// @param out     [rows], in order
  /// @throws DataError when a row's logits are not finite, or its processors bar every token
  void sample(const at::Tensor& logits,
              std::span<const SampleRow> rows,
              std::vector<SampledToken>& out);

 private:
  at::Tensor temper(const at::Tensor& logits, std::span<const SampleRow> rows);
  SampledToken sample_row(std::span<const float> z,
                          const SampleRow& row,
                          DrawScratch& scratch) const;

  std::vector<DrawScratch> scratch_;   ///< one a thread
  std::vector<int64_t> tempered_row_;  ///< [rows] row of the tempered logits, or -1: as they are
};

}  // namespace praetor
