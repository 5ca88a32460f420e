#include "tests/support/tiny_model.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/model/ops.h"
#include "tests/support/catch.h"

namespace praetor::testing {

ModelConfig tiny_config() {
  ModelConfig config;
  config.vocab_size = 40;
  config.hidden_size = 24;
  config.intermediate_size = 36;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 6;
  config.max_positions = 96;
  config.initializer_range = 0.3;
  config.bos_token = 1;
  config.eos_tokens = {2};
  return config;
}

RandomStream stream(uint64_t seed) {
  SampleKey key;
  key.job_seed = seed;
  key.purpose = Purpose::kInitialise;
  return RandomStream(key);
}

Transformer tiny_model(uint64_t seed) {
  return Transformer(tiny_config(), stream(seed));
}

std::vector<int64_t> random_tokens(int64_t count, int64_t vocab_size, uint64_t seed) {
  RandomStream numbers = stream(seed);
  std::vector<int64_t> out;
  for (int64_t i = 0; i < count; ++i) {
    out.push_back(static_cast<int64_t>(numbers.below(static_cast<uint64_t>(vocab_size))));
  }
  return out;
}

PackedTokens batch_with_prefix(int64_t vocab_size) {
  return {.tokens = at::tensor(random_tokens(21, vocab_size, 3), at::kLong),
          .offsets = {0, 6, 11, 15, 21},
          .prefix = {-1, -1, 1, 1}};
}

at::Tensor hidden_by_steps(const Transformer& model,
                           const std::vector<int64_t>& tokens,
                           int64_t chunk,
                           int64_t block_size) {
  const auto total = static_cast<int64_t>(tokens.size());
  KvCache cache = model.make_cache((total + block_size - 1) / block_size, block_size);
  std::vector<int32_t> table(cache.layers[0].keys.size(0));
  for (size_t i = 0; i < table.size(); ++i)
    table[i] = static_cast<int32_t>(table.size() - 1 - i);  // any order will do
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0; begin < total; begin += chunk) {
    CachedRows rows;
    rows.tables = {&table};
    rows.lengths = {total};
    for (int64_t i = begin; i < std::min(begin + chunk, total); ++i) {
      rows.tokens.push_back(tokens[i]);
      rows.positions.push_back(static_cast<int32_t>(i));
      rows.sequence.push_back(0);
    }
    parts.push_back(model.hidden_cached(rows, cache));
  }
  return at::cat(parts);
}

std::vector<int64_t> greedy(const Transformer& model, std::vector<int64_t> tokens, int64_t count) {
  const int64_t block_size = 16;
  const auto longest = static_cast<int64_t>(tokens.size()) + count;
  KvCache cache = model.make_cache((longest + block_size - 1) / block_size, block_size);
  std::vector<int32_t> table(cache.layers[0].keys.size(0));
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i);
  size_t seen = 0;
  while (static_cast<int64_t>(tokens.size()) < longest) {
    if (static_cast<int64_t>(tokens.size()) == model.config().switch_length() + 1) seen = 0;
    CachedRows rows;
    rows.tables = {&table};
    for (; seen < tokens.size(); ++seen) {
      rows.tokens.push_back(tokens[seen]);
      rows.positions.push_back(static_cast<int32_t>(seen));
      rows.sequence.push_back(0);
    }
    const at::Tensor last =
        model.hidden_cached(rows, cache, {static_cast<int64_t>(rows.tokens.size()) - 1});
    tokens.push_back(model.logits(last).argmax(-1).item<int64_t>());
  }
  return tokens;
}

at::Tensor mean_nll(const Transformer& model, const std::vector<std::vector<int64_t>>& sequences) {
  const PackedTokens batch = pack(sequences);
  std::vector<int64_t> rows, targets;
  for (size_t s = 0; s < sequences.size(); ++s) {
    for (size_t i = 0; i + 1 < sequences[s].size(); ++i) {
      rows.push_back(batch.offsets[s] + static_cast<int64_t>(i));
      targets.push_back(sequences[s][i + 1]);
    }
  }
  const at::Tensor hidden = model.hidden(batch).index_select(0, at::tensor(rows, at::kLong));
  return -ops::token_logprobs(hidden, model.head(), at::tensor(targets, at::kLong)).logprob.mean();
}

void check_middle_gradients(const std::vector<NamedTensor>& parameters,
                            const std::function<at::Tensor()>& loss) {
  for (const NamedTensor& p : parameters) {
    INFO(p.name);
    const at::Tensor flat = p.tensor.detach().flatten();  // shares storage
    const int64_t i = flat.numel() / 2;
    const double was = flat[i].item<double>(), step = 1e-5;
    flat[i].fill_(was + step);
    const double above = loss().item<double>();
    flat[i].fill_(was - step);
    const double below = loss().item<double>();
    flat[i].fill_(was);
    CHECK(p.tensor.grad().flatten()[i].item<double>() ==
          Approx((above - below) / (2 * step)).epsilon(1e-5).margin(1e-9));
  }
}

}  // namespace praetor::testing
