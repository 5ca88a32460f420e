#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace praetor {

/// What a loss divides by: counts over every rank and micro-batch of one optimizer step, so that
/// gradient accumulation equals one large batch.
struct Denominators {
  double tokens = 0;     ///< true mask entries
  double sequences = 0;  ///< sequences with at least one true mask entry
  double pairs = 0;      ///< units of two sequences, such as preference pairs
  double labels = 0;     ///< numbers that the sequences are labelled with
};

enum class Aggregation { kTokenMean, kSeqMeanTokenMean, kSeqMeanTokenSum, kSeqMeanTokenSumNorm };
/// "token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"
const std::vector<std::string>& aggregation_names();
/// @throws InvalidArgument for another word
Aggregation aggregation_from_name(const std::string& name);

/// Per-token losses of one micro-batch to its share of the step's loss.
///
///   token-mean               sum f m / tokens
///   seq-mean-token-mean      sum_i (sum_t f m / T_i) / sequences      T_i = true mask entries of
///   sequence i seq-mean-token-sum       sum f m / sequences seq-mean-token-sum-norm  sum f m /
///   (sequences * max_tokens)
///
/// @param per_token    [R]; may be NaN outside the mask, which reaches neither the loss nor the
/// gradient
/// @param mask         [R] bool
/// @param sequence_of  [R] int64, ascending from 0; a sequence lies whole in one micro-batch
/// @param max_tokens   the constant T_max of the last mode (arXiv:2503.20783)
/// @throws ShapeError; InvalidArgument when a needed denominator is not above 0
at::Tensor aggregate(const at::Tensor& per_token,
                     const at::Tensor& mask,
                     const at::Tensor& sequence_of,
                     const Denominators& denominators,
                     Aggregation mode = Aggregation::kTokenMean,
                     int64_t max_tokens = 0);

/// Sums of `x` [R] over the sequences named by sequence_of: [sequences].
at::Tensor segment_sum(const at::Tensor& x, const at::Tensor& sequence_of, int64_t sequences);

}  // namespace praetor
