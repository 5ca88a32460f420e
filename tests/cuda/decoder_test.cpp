#include "core/cuda/decoder.h"

#include <ATen/ATen.h>

#include <vector>

#include "tests/cuda/gpu.h"
#include "tests/support/tiny_model.h"

namespace praetor {

TEST_CASE("a model on a GPU has the processor's logits but for rounding", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  ModelConfig config = testing::tiny_config();
  config.hidden_size = 256;
  config.intermediate_size = 512;
  config.num_layers = 4;
  config.num_heads = 8;
  config.num_kv_heads = 2;
  config.head_dim = 64;
  config.vocab_size = 1000;
  config.max_positions = 512;
  config.initializer_range = 0.1;
  const Transformer model(config, testing::stream(3));
  for (const NamedTensor& each : model.parameters())
    each.tensor.copy_(each.tensor.to(at::kBFloat16).to(at::kFloat));
  const std::vector<int64_t> tokens = testing::random_tokens(300, 1000, 1);
  const at::Tensor wanted = ops::log_softmax(model.logits(model.hidden(pack({tokens}))));
  // Rounding to bfloat16 moves such a model's log-probabilities by one to three hundredths of their
  // spread (tests/core/cuda/decoder_test.cpp holds the same code to a tenth of that).
  cuda::Decoder decoder(
      gpu, config, {.max_rows = 256, .max_sequences = 4, .block_size = 16, .blocks = 60});
  decoder.load(model);
  std::vector<std::vector<int32_t>> tables(3);
  for (int32_t i = 0; i < 60; ++i) tables[static_cast<size_t>(i % 3)].push_back(59 - i);
  const auto apart = [&](int64_t row, int64_t position) {
    const at::Tensor got = ops::log_softmax(decoder.logits())[row], own = wanted[position];
    return ((got - own).square().mean() / (own - own.mean()).square().mean()).sqrt().item<double>();
  };
  const auto rows_of = [&](int64_t begin, int64_t end, size_t sequences) {
    CachedRows rows;
    for (size_t s = 0; s < sequences; ++s) {
      rows.tables.push_back(&tables[s]);
      for (int64_t p = begin; p < end; ++p) {
        rows.tokens.push_back(tokens[static_cast<size_t>(p)]);
        rows.positions.push_back(static_cast<int32_t>(p));
        rows.sequence.push_back(static_cast<int32_t>(s));
      }
    }
    return rows;
  };
  decoder.run(rows_of(0, 80, 3), {0, 79, 239});
  CHECK(apart(0, 0) < 0.06);
  CHECK(apart(1, 79) < 0.06);
  CHECK(apart(2, 79) < 0.06);
  for (int64_t p = 80; p < 300; ++p) decoder.run(rows_of(p, p + 1, 3));
  CHECK(decoder.recordings() == 1);
  for (int64_t row = 0; row < 3; ++row) CHECK(apart(row, 299) < 0.06);
  const auto drawn = decoder.sample(std::vector{cuda::sample_spec(1, 0, 0, 1, 0, {}, 0)});
  CHECK(drawn[0].token == decoder.logits()[1].argmax().item<int64_t>());
}

}  // namespace praetor
