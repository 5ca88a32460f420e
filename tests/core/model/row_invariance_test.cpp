#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/threads.h"
#include "core/model/sequence_logprobs.h"
#include "core/model/transformer.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

/// A sample does not depend on its neighbours: float32 on CPU, compared bit for bit.
namespace praetor {

using Sequences = std::vector<std::vector<int64_t>>;

namespace {

/// Sequences of 1 to 80 tokens: below, at and above the sizes at which a library might take another
/// path.
Sequences sixteen_sequences() {
  Sequences out;
  for (const int64_t length : {17, 1, 2, 15, 16, 80, 3, 31, 32, 33, 5, 64, 65, 7, 48, 9}) {
    out.push_back(testing::random_tokens(length, 40, 100 + out.size()));
  }
  return out;
}

Transformer model_of(
    int64_t hidden, int64_t intermediate, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  ModelConfig config = testing::tiny_config();
  config.hidden_size = hidden;
  config.intermediate_size = intermediate;
  config.num_heads = heads;
  config.num_kv_heads = kv_heads;
  config.head_dim = head_dim;
  config.initializer_range = 0.2;
  config.attention_bias = config.output_bias = config.mlp_bias = true;
  return Transformer(config, testing::stream(31));
}

/// Odd sizes, one with products longer than a cache line or a vector register divides, and one of
/// each family.
std::vector<Transformer> models() {
  std::vector<Transformer> out;
  out.push_back(testing::tiny_model());
  out.push_back(model_of(50, 77, 5, 1, 10));
  out.push_back(model_of(64, 400, 8, 4, 8));
  for (const std::string name :
       {"mistral_window", "gpt2", "qwen3", "phi3_longrope", "gemma2", "gemma3"})
    out.push_back(Transformer::load(testing::golden("families/" + name)));
  return out;
}

}  // namespace

TEST_CASE(
    "hidden states and logits of a sequence are the same alone, among any neighbours, in any "
    "order, on 1 and 2 threads",
    "[core][cpu]") {
  const int before = threads();
  const Sequences sequences = sixteen_sequences();
  for (const Transformer& model : models()) {
    set_threads(1);
    std::vector<at::Tensor> alone;
    for (const auto& sequence : sequences)
      alone.push_back(model.logits(model.hidden(pack({sequence}))));
    for (const int threads : {1, 2}) {
      set_threads(threads);
      for (size_t count = 1; count <= sequences.size(); ++count) {
        std::vector<size_t> order(count);
        std::iota(order.begin(), order.end(), 0);
        if (count % 2 == 0) std::reverse(order.begin(), order.end());
        std::rotate(order.begin(), order.begin() + static_cast<ptrdiff_t>(count / 3), order.end());
        Sequences chosen;
        for (const size_t i : order) chosen.push_back(sequences[i]);
        const PackedTokens batch = pack(chosen);
        const at::Tensor logits = model.logits(model.hidden(batch));
        for (size_t i = 0; i < count; ++i) {
          INFO("threads " << threads << ", " << count << " sequences, sequence " << order[i]);
          CHECK(
              at::equal(logits.slice(0, batch.offsets[i], batch.offsets[i + 1]), alone[order[i]]));
        }
      }
    }
  }
  set_threads(before);
}

TEST_CASE("sequences that share a prefix have the hidden states of sequences by themselves",
          "[core][cpu]") {
  Sequences sequences;
  for (const int64_t length : {1, 0, 40, 7, 7, 20}) {
    std::vector<int64_t> one = testing::random_tokens(19, 40, 7);
    for (const int64_t token : testing::random_tokens(length, 40, 60 + sequences.size()))
      one.push_back(token);
    sequences.push_back(std::move(one));
  }
  for (const Transformer& model : models()) {
    const SharedPack shared =
        pack_shared({sequences.begin(), sequences.end()}, model.config().switch_length());
    CHECK(shared.packed.total() < pack(sequences).total() - 3 * 19);
    const at::Tensor hidden = model.hidden(shared.packed);
    for (size_t i = 0; i < sequences.size(); ++i) {
      const at::Tensor alone = model.hidden(pack({sequences[i]}));
      for (int64_t p = 0; p < alone.size(0); ++p)
        CHECK(at::equal(hidden[shared.row(static_cast<int64_t>(i), p)], alone[p]));
    }
  }
  // Whoever shares across the length at which rotations change is told.
  const Transformer phi3 = Transformer::load(testing::golden("families/phi3_longrope"));
  CHECK_THROWS_AS(phi3.hidden(pack_shared({sequences.begin(), sequences.end()}).packed),
                  ShapeError);
}

TEST_CASE("decoding through the cache equals the packed forward, whatever the chunks and blocks",
          "[core][cpu]") {
  const int before = threads();
  const Sequences sequences = sixteen_sequences();
  for (const Transformer& model : models()) {
    for (const int threads : {1, 2}) {
      set_threads(threads);
      for (const size_t which : {0, 1, 5, 11}) {
        const at::Tensor packed = model.hidden(pack({sequences[which]}));
        for (const int64_t chunk : {1, 7, 16, 100}) {
          for (const int64_t block_size : {1, 4, 16}) {
            INFO("threads " << threads << ", sequence " << which << ", chunk " << chunk
                            << ", block " << block_size);
            CHECK(at::equal(testing::hidden_by_steps(model, sequences[which], chunk, block_size),
                            packed));
          }
        }
      }
    }
  }
  set_threads(before);
}

TEST_CASE("a step that mixes prefill and decode of several sequences equals each alone",
          "[core][cpu]") {
  const Sequences sequences = sixteen_sequences();
  // Round by round sequence s advances by 1 + s % 5 tokens until it ends; all share the cache.
  const int64_t block_size = 8;
  for (const Transformer& model : models()) {
    KvCache cache = model.make_cache(16 * 10, block_size);
    std::vector<std::vector<int32_t>> tables(sequences.size());
    for (size_t s = 0; s < tables.size(); ++s) {
      for (int32_t b = 0; b < 10; ++b)
        tables[s].push_back(b * 16 + static_cast<int32_t>(s));  // interleaved
    }
    std::vector<std::vector<at::Tensor>> parts(sequences.size());
    std::vector<size_t> at_token(sequences.size(), 0);
    for (bool busy = true; busy;) {
      busy = false;
      CachedRows rows;
      for (const auto& table : tables) rows.tables.push_back(&table);
      for (const auto& sequence : sequences)
        rows.lengths.push_back(static_cast<int64_t>(sequence.size()));
      for (size_t s = 0; s < sequences.size(); ++s) {
        for (size_t n = 0; n < 1 + s % 5 && at_token[s] < sequences[s].size(); ++n, ++at_token[s]) {
          rows.tokens.push_back(sequences[s][at_token[s]]);
          rows.positions.push_back(static_cast<int32_t>(at_token[s]));
          rows.sequence.push_back(static_cast<int32_t>(s));
        }
      }
      if (rows.tokens.empty()) break;
      busy = true;
      const at::Tensor hidden = model.hidden_cached(rows, cache);
      for (size_t i = 0; i < rows.tokens.size(); ++i)
        parts[rows.sequence[i]].push_back(hidden[static_cast<int64_t>(i)]);
    }
    for (size_t s = 0; s < sequences.size(); ++s) {
      INFO("sequence " << s);
      CHECK(at::equal(at::stack(parts[s]), model.hidden(pack({sequences[s]}))));
    }
  }
}

TEST_CASE("rows that are not wanted change nothing for those that are", "[core][cpu]") {
  const Transformer model = testing::tiny_model();
  const std::vector<int64_t> tokens = testing::random_tokens(30, 40, 8);
  const std::vector<int32_t> table = {0, 1};
  CachedRows rows;
  rows.tables = {&table};
  for (int32_t i = 0; i < 30; ++i) {
    rows.tokens.push_back(tokens[i]);
    rows.positions.push_back(i);
    rows.sequence.push_back(0);
  }
  KvCache cache = model.make_cache(2, 16);
  const at::Tensor all = model.hidden_cached(rows, cache);
  const at::Tensor some = model.hidden_cached(rows, cache, {29, 3});
  CHECK(at::equal(some[0], all[29]));
  CHECK(at::equal(some[1], all[3]));
}

TEST_CASE("log-probabilities do not depend on how sequences are batched", "[core][cpu]") {
  const Sequences sequences = sixteen_sequences();
  for (const Transformer& model : models()) {
    const auto whole = sequence_logprobs(model, sequences, 100000);
    for (const int64_t batch_tokens : {1, 50, 200})
      CHECK(sequence_logprobs(model, sequences, batch_tokens) == whole);
  }
  const Transformer coarse(testing::tiny_config(), testing::stream(1), at::kBFloat16);
  const Sequences few(sequences.begin(), sequences.begin() + 4);
  CHECK(sequence_logprobs(coarse, few, 1) == sequence_logprobs(coarse, few, 100000));
}

TEST_CASE("rows in bfloat16 do not depend on their neighbours either", "[core][cpu]") {
  const c10::NoGradGuard no_grad;
  const Transformer model(testing::tiny_config(), testing::stream(1), at::kBFloat16);
  const Sequences sequences = sixteen_sequences();
  const PackedTokens together = pack(sequences);
  const at::Tensor all = model.hidden(together);
  CHECK(all.scalar_type() == at::kBFloat16);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const at::Tensor alone = model.hidden(pack({sequences[i]}));
    CHECK(at::equal(all.slice(0, together.offsets[i], together.offsets[i + 1]), alone));
  }
}

}  // namespace praetor
