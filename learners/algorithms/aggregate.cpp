#include "learners/algorithms/aggregate.h"

#include <ATen/ATen.h>

#include "core/base/error.h"
#include "core/base/text.h"
#include "learners/algorithms/checks.h"

namespace praetor {
namespace {

double positive(const char* name, double value) {
  if (!(value > 0))
    throw InvalidArgument("aggregate: ", name, " is ", value, ", but must be above 0");
  return value;
}

}  // namespace

const std::vector<std::string>& aggregation_names() {
  static const std::vector<std::string> kNames{
      "token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"};
  return kNames;
}

Aggregation aggregation_from_name(const std::string& name) {
  for (size_t i = 0; i < aggregation_names().size(); ++i) {
    if (aggregation_names()[i] == name) return static_cast<Aggregation>(i);
  }
  throw InvalidArgument(
      "loss aggregation \"", name, "\" is not known; there are ", join(aggregation_names(), ", "));
}

at::Tensor segment_sum(const at::Tensor& x, const at::Tensor& sequence_of, int64_t sequences) {
  require_same_shape("segment_sum", x, {{"sequence_of", sequence_of}});
  return at::zeros({sequences}, x.options()).index_add(0, sequence_of, x);
}

at::Tensor aggregate(const at::Tensor& per_token,
                     const at::Tensor& mask,
                     const at::Tensor& sequence_of,
                     const Denominators& denominators,
                     Aggregation mode,
                     int64_t max_tokens) {
  require_same_shape("aggregate", per_token, {{"mask", mask}, {"sequence_of", sequence_of}});
  const at::Tensor kept = per_token.masked_fill(mask.logical_not(), 0.0);
  switch (mode) {
    case Aggregation::kTokenMean:
      return kept.sum() / positive("denominators.tokens", denominators.tokens);
    case Aggregation::kSeqMeanTokenMean: {
      const double sequences = positive("denominators.sequences", denominators.sequences);
      if (kept.numel() == 0) return kept.sum();
      const int64_t count = sequence_of.max().item<int64_t>() + 1;
      const at::Tensor lengths = segment_sum(mask.to(per_token.scalar_type()), sequence_of, count);
      return (segment_sum(kept, sequence_of, count) / lengths.clamp_min(1)).sum() / sequences;
    }
    case Aggregation::kSeqMeanTokenSum:
      return kept.sum() / positive("denominators.sequences", denominators.sequences);
    case Aggregation::kSeqMeanTokenSumNorm:
      return kept.sum() / (positive("denominators.sequences", denominators.sequences) *
                           positive("max_tokens", static_cast<double>(max_tokens)));
  }
  throw InternalError("aggregate: no such mode");
}

}  // namespace praetor
