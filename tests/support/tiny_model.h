#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "core/model/transformer.h"

namespace praetor::testing {

/// A Llama of one or two layers with grouped heads, small enough to run in no time.
ModelConfig tiny_config();

/// The stream that random weights of a test come from.
RandomStream stream(uint64_t seed);

/// tiny_config() with weights large enough that its log-probabilities differ by nats.
Transformer tiny_model(uint64_t seed = 1);

/// `count` token ids below `vocab_size`.
std::vector<int64_t> random_tokens(int64_t count, int64_t vocab_size, uint64_t seed);

/// Three sequences of 21 tokens in all, the last two of which go on after a prefix.
PackedTokens batch_with_prefix(int64_t vocab_size);

/// Feeds a sequence through the cache, `chunk` tokens a step, and returns all hidden states [T,H].
at::Tensor hidden_by_steps(const Transformer& model,
                           const std::vector<int64_t>& tokens,
                           int64_t chunk,
                           int64_t block_size = 4);

/// Greedy continuation by the cache: the prompt with `count` tokens more.
std::vector<int64_t> greedy(const Transformer& model, std::vector<int64_t> tokens, int64_t count);

/// Mean negative log-likelihood over all predicted tokens; differentiable.
at::Tensor mean_nll(const Transformer& model, const std::vector<std::vector<int64_t>>& sequences);

/// Holds the gradient of each of `parameters` (float64, after a backward of `loss`) to a central
/// difference in its middle element.
void check_middle_gradients(const std::vector<NamedTensor>& parameters,
                            const std::function<at::Tensor()>& loss);

}  // namespace praetor::testing
