#include "rollout/sampler.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/model/ops.h"

namespace praetor {
namespace {

// Rows with fewer logits than this together are not worth waking a second thread.
constexpr int64_t kParallelLogits = 32768;

bool as_they_are(double temperature) {
  return temperature == 0.0 || temperature == 1.0;
}

std::span<const float> row_of(const at::Tensor& logits, int64_t row) {
  const auto vocab = static_cast<size_t>(logits.size(1));
  return {logits.const_data_ptr<float>() + static_cast<size_t>(row) * vocab, vocab};
}

// CTRL's repetition penalty (arXiv:1909.05858, section 4.1; its sign fixed as transformers does).
void penalise(std::span<float> z, const SeenTokens& seen, double penalty) {
  const auto p = static_cast<float>(penalty);
  for (const int64_t id : seen.ids()) {
    float& value = z[static_cast<size_t>(id)];
    value = value > 0.0F ? value / p : value * p;
  }
}

bool more_likely(const TopLogprob& a, const TopLogprob& b) {
  return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
}

// A heap whose front is the least likely of those kept; ids come in ascending order, so an equal
// one never displaces what is there.
std::vector<TopLogprob> most_likely(std::span<const float> logprobs, int64_t count) {
  std::vector<TopLogprob> kept;
  const size_t most = std::min(static_cast<size_t>(count), logprobs.size());
  kept.reserve(most);
  for (size_t id = 0; id < logprobs.size(); ++id) {
    const TopLogprob each{static_cast<int64_t>(id), logprobs[id]};
    if (kept.size() == most) {
      if (!(each.logprob > kept.front().logprob)) continue;
      std::pop_heap(kept.begin(), kept.end(), more_likely);
      kept.pop_back();
    }
    kept.push_back(each);
    std::push_heap(kept.begin(), kept.end(), more_likely);
  }
  std::sort_heap(kept.begin(), kept.end(), more_likely);
  return kept;
}

}  // namespace

void SeenTokens::add(int64_t id) {
  if (seen_[static_cast<size_t>(id)]) return;
  seen_[static_cast<size_t>(id)] = true;
  ids_.push_back(id);
}

bool reshapes(const SamplingParams& p) {
  return p.temperature > 0.0 && (p.top_k > 0 || p.top_p < 1.0 || p.min_p > 0.0 ||
                                 p.repetition_penalty != 1.0 || !p.processors.empty());
}

at::Tensor Sampler::temper(const at::Tensor& logits, std::span<const SampleRow> rows) {
  tempered_row_.assign(rows.size(), -1);
  int64_t count = 0;
  const auto same = [&](size_t i) {
    return i > 0 && rows[i].logits_row == rows[i - 1].logits_row &&
           rows[i].params->temperature == rows[i - 1].params->temperature;
  };
  for (size_t i = 0; i < rows.size(); ++i) {
    if (as_they_are(rows[i].params->temperature)) continue;
    tempered_row_[i] = same(i) ? tempered_row_[i - 1] : count++;
  }
  if (count == 0) return {};
  at::Tensor tempered = at::empty({count, logits.size(1)}, logits.options());
  float* out = tempered.mutable_data_ptr<float>();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (tempered_row_[i] < 0 || same(i)) continue;
    const auto temperature = static_cast<float>(rows[i].params->temperature);
    for (const float value : row_of(logits, rows[i].logits_row)) *out++ = value / temperature;
  }
  return tempered;
}

SampledToken Sampler::sample_row(std::span<const float> z,
                                 const SampleRow& row,
                                 DrawScratch& scratch) const {
  const SamplingParams& params = *row.params;
  const bool penalised = params.repetition_penalty != 1.0;
  const bool processed = !params.processors.empty();
  if (penalised || processed) {
    scratch.z.assign(z.begin(), z.end());
    z = scratch.z;
  }
  if (penalised) {
    PRAETOR_CHECK(row.seen, "the repetition penalty needs the tokens seen");
    penalise(scratch.z, *row.seen, params.repetition_penalty);
  }
  if (processed) {
    PRAETOR_CHECK(row.processors, "the parameters' processors are missing");
    row.processors->apply(scratch.z);
  }
  SampledToken sampled;
  if (params.temperature == 0.0) {
    sampled.token = argmax(z);
    return sampled;
  }
  const Truncation truncation{params.top_k, params.top_p, params.min_p};
  const Drawn drawn = draw(z, truncation, uniform(row.key, row.position), scratch);
  sampled.token = drawn.id;
  sampled.sampled_logprob = drawn.logprob;
  sampled.kept_mass = drawn.kept_mass;
  return sampled;
}

void Sampler::sample(const at::Tensor& logits,
                     std::span<const SampleRow> rows,
                     std::vector<SampledToken>& out) {
  PRAETOR_CHECK(logits.dim() == 2 && logits.scalar_type() == at::kFloat && logits.is_contiguous(),
                "the sampler takes contiguous float32 logits [M,V]");
  const at::Tensor tempered = temper(logits, rows);
  const at::Tensor model_logprobs = ops::log_softmax(logits);
  const at::Tensor tempered_logprobs = tempered.defined() ? ops::log_softmax(tempered) : tempered;
  out.resize(rows.size());
  scratch_.resize(std::max(scratch_.size(), static_cast<size_t>(at::get_num_threads())));
  const int64_t grain = std::max<int64_t>(1, kParallelLogits / logits.size(1));
  at::parallel_for(0, static_cast<int64_t>(rows.size()), grain, [&](int64_t begin, int64_t end) {
    DrawScratch& scratch = scratch_[static_cast<size_t>(at::get_thread_num())];
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const SampleRow& row = rows[i];
      const int64_t own = tempered_row_[i];
      out[i] = sample_row(
          own < 0 ? row_of(logits, row.logits_row) : row_of(tempered, own), row, scratch);
      const auto token = static_cast<size_t>(out[i].token);
      out[i].model_logprob = row_of(model_logprobs, row.logits_row)[token];
      if (row.params->top_logprobs > 0)
        out[i].top = most_likely(row_of(model_logprobs, row.logits_row), row.params->top_logprobs);
      out[i].behavior_logprob =
          own < 0 ? out[i].model_logprob : row_of(tempered_logprobs, own)[token];
    }
  });
}

}  // namespace praetor
