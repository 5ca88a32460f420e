#include "core/model/sequence_logprobs.h"

#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "core/base/error.h"

namespace praetor {

namespace {

/// Scores sequences [begin, end) in one forward.
void score_batch(const Transformer& model,
                 const std::vector<std::vector<int64_t>>& sequences,
                 size_t begin,
                 size_t end,
                 std::vector<std::vector<float>>& out) {
  const PackedTokens batch = pack({sequences.begin() + begin, sequences.begin() + end});
  std::vector<int64_t> rows;
  std::vector<int64_t> targets;
  for (size_t s = begin; s < end; ++s) {
    for (size_t i = 0; i + 1 < sequences[s].size(); ++i) {
      rows.push_back(batch.offsets[s - begin] + static_cast<int64_t>(i));
      targets.push_back(sequences[s][i + 1]);
    }
  }
  out.resize(end);
  const auto options = at::dtype(at::kLong);
  // Also where nothing is predicted: it checks the tokens.
  const at::Tensor hidden = model.hidden(batch, at::tensor(rows, options));
  if (rows.empty()) return;
  const at::Tensor logprob = ops::token_logprobs(hidden, model.head(), at::tensor(targets, options))
                                 .logprob.to(at::kFloat)
                                 .contiguous();
  const float* from = logprob.const_data_ptr<float>();
  for (size_t s = begin; s < end; ++s) {
    const size_t count = std::max<size_t>(sequences[s].size(), 1) - 1;
    out[s].assign(from, from + count);
    from += count;
  }
}

}  // namespace

std::vector<std::vector<float>> sequence_logprobs(
    const Transformer& model,
    const std::vector<std::vector<int64_t>>& sequences,
    int64_t batch_tokens) {
  if (batch_tokens < 1)
    throw InvalidArgument("log-probabilities: batch_tokens ", batch_tokens, " is below 1");
  const c10::NoGradGuard no_grad;
  const bool together = model.dtype() == at::kFloat;
  std::vector<std::vector<float>> out;
  size_t begin = 0;
  int64_t filled = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto length = static_cast<int64_t>(sequences[i].size());
    if (i > begin && (!together || filled + length > batch_tokens)) {
      score_batch(model, sequences, begin, i, out);
      begin = i;
      filled = 0;
    }
    filled += length;
  }
  if (begin < sequences.size()) score_batch(model, sequences, begin, sequences.size(), out);
  return out;
}

}  // namespace praetor
