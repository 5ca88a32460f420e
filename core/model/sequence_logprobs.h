#pragma once

#include <cstdint>
#include <vector>

#include "core/model/transformer.h"

namespace praetor {

/// Natural log-probabilities of the tokens of each sequence given the ones before: out[s][i] = ln
/// p(s[i+1] | s[0..i]), one value fewer than tokens. Sequences are packed in order, up to
/// `batch_tokens` a forward (a longer one alone); in float32 on CPU the values do not depend on
/// that, in other dtypes each sequence is run alone so that they do not either. No gradients.
/// @throws DataError as Transformer::hidden; InvalidArgument when batch_tokens < 1
std::vector<std::vector<float>> sequence_logprobs(
    const Transformer& model,
    const std::vector<std::vector<int64_t>>& sequences,
    int64_t batch_tokens = 8192);

}  // namespace praetor
