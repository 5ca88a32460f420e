#include "rollout/voices.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/base/error.h"

namespace praetor {
namespace {

// Fewer logits than this are not worth waking a second thread.
constexpr int64_t kParallelLogits = 65536;

void write_row(const std::array<const float*, 2>& from, double share, int64_t vocab, float* to) {
  const float* policy = from[kPolicyModel];
  const float* companion = from[kCompanionModel];
  if (!policy || !companion) {
    const float* only = policy ? policy : companion;
    if (only != to) std::copy_n(only, vocab, to);
    return;
  }
  const auto own = static_cast<float>(1.0 - share);
  const auto other = static_cast<float>(share);
  for (int64_t v = 0; v < vocab; ++v) to[v] = own * policy[v] + other * companion[v];
}

bool in_order(std::span<const VoicedRow> rows, size_t model) {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].row[model] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

}  // namespace

at::Tensor mix_voices(const std::array<at::Tensor, 2>& logits, std::span<const VoicedRow> rows) {
  if (!logits[kCompanionModel].defined()) return logits[kPolicyModel];
  if (!logits[kPolicyModel].defined()) return logits[kCompanionModel];
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t vocab = logits[kPolicyModel].size(1);
  PRAETOR_CHECK(logits[kCompanionModel].size(1) == vocab, "mixed models share a vocabulary");
  // Where each row has its place already, a large buffer less is taken from the system and filled.
  at::Tensor mixed = in_order(rows, kPolicyModel)
                         ? logits[kPolicyModel]
                         : at::empty({count, vocab}, logits[kPolicyModel].options());
  float* const out = mixed.mutable_data_ptr<float>();
  const int64_t grain = std::max<int64_t>(1, kParallelLogits / vocab);
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const VoicedRow& row = rows[static_cast<size_t>(i)];
      std::array<const float*, 2> from = {nullptr, nullptr};
      for (size_t m = 0; m < from.size(); ++m) {
        if (row.row[m] >= 0) from[m] = logits[m].const_data_ptr<float>() + row.row[m] * vocab;
      }
      write_row(from, row.share, vocab, out + i * vocab);
    }
  });
  return mixed;
}

}  // namespace praetor
