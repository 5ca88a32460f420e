#include "core/cuda/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/model/families.h"
#include "core/model/rope.h"
#include "tests/support/catch.h"
#include "tests/support/processor_device.h"
#include "tests/support/tiny_model.h"

namespace praetor {

using cuda::Decoder;
using cuda::DecoderOptions;
using testing::ProcessorDevice;

namespace {

ModelConfig config_of(const std::string& family, bool tied) {
  ModelConfig config = testing::tiny_config();
  config.architecture = family;
  config.head_dim = 8;
  config.hidden_size = 32;
  config.tie_embeddings = tied;
  config.attention_bias = family == "qwen2";
  return config;
}

/// A small model of every family, with all that its folders may ask for: windows that the test's
/// sequences outgrow, both rotations, caps.
std::vector<ModelConfig> configs_of_families() {
  std::vector<ModelConfig> out;
  const auto add = [&](const std::string& family) -> ModelConfig& {
    out.push_back(config_of(family, out.size() % 2 == 0));
    return out.back();
  };
  ModelConfig& llama = add("llama");
  llama.attention_bias = llama.output_bias = llama.mlp_bias = true;
  ModelConfig& mistral = add("mistral");
  mistral.sliding_window = 6;
  mistral.windowed_layers = {true, true};
  add("qwen2");
  add("qwen3");
  ModelConfig& gpt2 = add("gpt2");
  gpt2.attention_bias = gpt2.output_bias = gpt2.mlp_bias = true;
  gpt2.num_kv_heads = gpt2.num_heads;
  ModelConfig& phi3 = add("phi3");
  phi3.rope.partial = 0.5;
  phi3.rope.scaling = "longrope";
  phi3.rope.original_max_positions = 16;
  phi3.rope.attention_factor = 1.2;
  phi3.rope.short_factor = {1.0, 1.5};
  phi3.rope.long_factor = {2.0, 4.0};
  for (const std::string family : {"gemma2", "gemma3_text"}) {
    ModelConfig& gemma = add(family);
    gemma.sliding_window = 7;
    gemma.windowed_layers = {true, false};
    gemma.query_scalar = 12;
    if (family == "gemma2") {
      gemma.attention_softcap = 3;
      gemma.logit_softcap = 4;
    } else {
      gemma.local_rope = RopeConfig{.theta = 100};
      gemma.rope.scaling = "linear";
      gemma.rope.factor = 2;
    }
  }
  return out;
}

/// Weights that bfloat16 holds, so that only what passes through the model is rounded.
Transformer model_of(const ModelConfig& config) {
  Transformer model(config, testing::stream(3));
  for (const NamedTensor& each : model.parameters()) {
    if (each.name.find("norm") != std::string::npos)
      each.tensor.add_(at::randn_like(each.tensor) * 0.1);
    if (each.name.ends_with("bias")) each.tensor.copy_(at::randn_like(each.tensor) * 0.3);
    each.tensor.copy_(each.tensor.to(at::kBFloat16).to(at::kFloat));
  }
  return model;
}

at::Tensor rounded(const at::Tensor& x) {
  return x.to(at::kBFloat16).to(at::kFloat);
}

/// Log-probabilities behind every token of a sequence, by the processor's operators, rounded to
/// bfloat16 where the GPU's forward pass rounds.
at::Tensor wanted_logprobs(const Transformer& model, const std::vector<int64_t>& tokens) {
  const ModelConfig& c = model.config();
  const Family& family = family_of(c);
  const auto count = static_cast<int64_t>(tokens.size());
  const auto weight = [&](const std::string& name) {
    for (const NamedTensor& each : model.parameters()) {
      if (each.name == name) return each.tensor;
    }
    return at::Tensor();
  };
  const auto normed = [&](const at::Tensor& x, const std::string& name) {
    const at::Tensor w = weight(name + ".weight");
    if (family.norm == NormKind::kLayer)
      return ops::layer_norm(x, w, weight(name + ".bias"), c.norm_eps);
    return ops::rms_norm(x, w, c.norm_eps, family.norm == NormKind::kRmsOnePlus ? 1 : 0);
  };
  at::Tensor x = ops::embedding(weight("model.embed_tokens.weight"), at::tensor(tokens, at::kLong));
  if (family.scaled_embedding) x = x * std::sqrt(static_cast<double>(c.hidden_size));
  if (family.learned_positions) x = x + weight("model.embed_positions.weight").narrow(0, 0, count);
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string layer = str("model.layers.", i, ".");
    const bool windowed = !c.windowed_layers.empty() && c.windowed_layers[static_cast<size_t>(i)];
    const auto linear = [&](const at::Tensor& from, const std::string& name) {
      return ops::linear(from, weight(layer + name + ".weight"), weight(layer + name + ".bias"));
    };
    const auto heads = [&](const std::string& name, int64_t n, const at::Tensor& from) {
      return linear(from, "self_attn." + name + "_proj").view({count, n, c.head_dim});
    };
    const auto rotated = [&](const at::Tensor& of, const std::string& name) {
      at::Tensor out = of;
      if (family.query_key_norms) {
        out = normed(out.reshape({-1, c.head_dim}), layer + "self_attn." + name).view(of.sizes());
      }
      if (family.learned_positions) return out;
      const RopeTables rope =
          rope_tables(c, windowed && c.local_rope ? *c.local_rope : c.rope, at::kFloat);
      const int64_t first = rope.row(0, count), turned = 2 * rope.cos.size(1);
      const at::Tensor front = ops::rope(out.narrow(2, 0, turned).contiguous(),
                                         rope.cos.narrow(0, first, count),
                                         rope.sin.narrow(0, first, count));
      return at::cat({front, out.narrow(2, turned, c.head_dim - turned)}, 2);
    };
    const auto added = [&](const at::Tensor& out, const char* norm) {
      x = x + (family.output_norms ? normed(out, layer + norm) : out);
    };
    at::Tensor h = rounded(normed(x, layer + "input_layernorm"));
    const at::Tensor q = rotated(heads("q", c.num_heads, h), "q_norm");
    const at::Tensor k = rotated(heads("k", c.num_kv_heads, h), "k_norm");
    const at::Tensor v = heads("v", c.num_kv_heads, h);
    const ops::AttentionOptions options{
        .scale = c.query_scalar > 0 ? 1 / std::sqrt(c.query_scalar) : 0,
        .softcap = c.attention_softcap,
        .window = c.window_of(i)};
    const at::Tensor attended =
        ops::causal_attention(q, rounded(k), rounded(v), {0, count}, options);
    added(linear(rounded(attended.view({count, -1})), "self_attn.o_proj"),
          "post_attention_layernorm");
    h = rounded(normed(
        x,
        layer + (family.output_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm")));
    const at::Tensor up = linear(h, "mlp.up_proj");
    at::Tensor inner;
    if (family.mlp == MlpKind::kGelu) {
      inner = ops::gelu(up);
    } else {
      const at::Tensor gate = linear(h, "mlp.gate_proj");
      inner = family.mlp == MlpKind::kGeglu ? ops::geglu(gate, up) : ops::swiglu(gate, up);
    }
    added(linear(rounded(inner), "mlp.down_proj"), "post_feedforward_layernorm");
  }
  return ops::log_softmax(model.logits(rounded(normed(x, "model.norm"))));
}

/// Root of the mean square of the difference, by that of `b` about its mean.
double apart(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor about_mean = b - b.mean(-1, true);
  return ((a - b).square().mean() / about_mean.square().mean()).sqrt().item<double>();
}

/// One sequence of a test, and where its tokens are.
struct Sequence {
  std::vector<int64_t> tokens;
  std::vector<int32_t> table;
  int64_t done = 0;
};

void add_rows(CachedRows& rows, Sequence& s, int64_t count) {
  rows.tables.push_back(&s.table);
  for (int64_t i = 0; i < count; ++i, ++s.done) {
    rows.tokens.push_back(s.tokens[static_cast<size_t>(s.done)]);
    rows.positions.push_back(static_cast<int32_t>(s.done));
    rows.sequence.push_back(static_cast<int32_t>(rows.tables.size() - 1));
  }
}

// Sums in another order are rounded to the other neighbour now and then: about 1e-3.
constexpr double kTolerance = 0.01;

}  // namespace

TEST_CASE("the GPU's forward pass is the model's but for rounding, in every family",
          "[core][cpu][cuda]") {
  for (const ModelConfig& config : configs_of_families()) {
    for (const int64_t multiprocessors : {1, 64}) {
      INFO(config.architecture << ", " << multiprocessors << " multiprocessors");
      at::manual_seed(5);
      const Transformer model = model_of(config);
      // Many multiprocessors: the keys are split.
      ProcessorDevice device(multiprocessors);
      Decoder decoder(device,
                      model.config(),
                      {.max_rows = 32, .max_sequences = 32, .block_size = 4, .blocks = 40});
      decoder.load(model);
      Sequence a{testing::random_tokens(30, 40, 1), {7, 3, 9, 0, 12, 5, 1, 20}};
      Sequence b{testing::random_tokens(11, 40, 2), {2, 39, 8}};
      const at::Tensor of_a = wanted_logprobs(model, a.tokens);
      const at::Tensor of_b = wanted_logprobs(model, b.tokens);
      // What rounding itself does to this model of large weights.
      const at::Tensor exact = ops::log_softmax(model.logits(model.hidden(pack({a.tokens}))));
      CHECK(apart(of_a, exact) < 0.05);

      CachedRows first;
      add_rows(first, a, 19);
      decoder.run(first);
      CHECK(apart(ops::log_softmax(decoder.logits()), of_a.narrow(0, 0, 19)) < kTolerance);
      CachedRows both;  // the rest of a prompt beside the next one's beginning
      add_rows(both, b, 9);
      add_rows(both, a, 5);
      decoder.run(both, {13, 8});
      const at::Tensor some = ops::log_softmax(decoder.logits());
      CHECK(apart(some[0], of_a[23]) < kTolerance);
      CHECK(apart(some[1], of_b[8]) < kTolerance);
      CHECK(decoder.recordings() == 0);
      CHECK(device.replays() == 0);

      for (int64_t step = 0; step < 2; ++step) {  // decoding: recorded, then replayed
        CachedRows rows;
        add_rows(rows, a, 1);
        add_rows(rows, b, 1);
        decoder.run(rows);
        const at::Tensor got = ops::log_softmax(decoder.logits());
        CHECK(apart(got[0], of_a[a.done - 1]) < kTolerance);
        CHECK(apart(got[1], of_b[b.done - 1]) < kTolerance);
      }
      CHECK(decoder.recordings() == 1);
      CHECK(device.replays() == 1);
    }
  }
}

TEST_CASE("a decoding step is filled up to a power of two by rows that touch nobody",
          "[core][cpu][cuda]") {
  at::manual_seed(6);
  const Transformer model = model_of(config_of("llama", false));
  ProcessorDevice device;
  Decoder decoder(
      device, model.config(), {.max_rows = 16, .max_sequences = 5, .block_size = 4, .blocks = 30});
  decoder.load(model);
  std::vector<Sequence> sequences;
  for (int32_t i = 0; i < 5; ++i) {
    sequences.push_back(
        {testing::random_tokens(12, 40, static_cast<uint64_t>(i)), {3 * i, 3 * i + 2, 3 * i + 1}});
  }
  for (int64_t step = 0; step < 12; ++step) {
    CachedRows rows;
    const size_t running = step < 6 ? 5 : 3;  // eight rows, then four
    for (size_t i = 0; i < running; ++i) add_rows(rows, sequences[i], 1);
    decoder.run(rows);
    CHECK(decoder.logits().size(0) == static_cast<int64_t>(running));
  }
  CHECK(decoder.recordings() == 2);
  CHECK(device.replays() == 10);
  const at::Tensor got = ops::log_softmax(decoder.logits());
  for (size_t i = 0; i < 3; ++i) {
    CHECK(apart(got[static_cast<int64_t>(i)], wanted_logprobs(model, sequences[i].tokens)[11]) <
          kTolerance);
  }
}

TEST_CASE("a copied block of the GPU's cache is the same block", "[core][cpu][cuda]") {
  at::manual_seed(7);
  const Transformer model = model_of(config_of("llama", false));
  ProcessorDevice device;
  Decoder decoder(
      device, model.config(), {.max_rows = 8, .max_sequences = 4, .block_size = 4, .blocks = 4});
  decoder.load(model);
  Sequence a{testing::random_tokens(6, 40, 1), {0, 1}};
  CachedRows prompt;
  add_rows(prompt, a, 5);
  decoder.run(prompt, {4});
  decoder.copy_block(1, 3);
  Sequence copy{a.tokens, {0, 3}, 5};
  CachedRows rows;
  add_rows(rows, a, 1);
  decoder.run(rows);
  const at::Tensor wanted = decoder.logits();
  CachedRows again;
  add_rows(again, copy, 1);
  decoder.run(again);
  CHECK(at::equal(decoder.logits(), wanted));
}

TEST_CASE("tokens are drawn where the logits are", "[core][cpu][cuda]") {
  at::manual_seed(8);
  const Transformer model = model_of(config_of("llama", false));
  ProcessorDevice device;
  Decoder decoder(
      device, model.config(), {.max_rows = 8, .max_sequences = 2, .block_size = 4, .blocks = 4});
  decoder.load(model);
  Sequence a{testing::random_tokens(5, 40, 1), {0, 1}};
  CachedRows prompt;
  add_rows(prompt, a, 5);
  decoder.run(prompt, {2, 4});
  const at::Tensor logits = decoder.logits();
  // More draws than rows: the samples of a prompt.
  std::vector<cuda::SampleSpec> specs;
  for (uint32_t i = 0; i < 5; ++i)
    specs.push_back(cuda::sample_spec(static_cast<int32_t>(i % 2), 0, 0, 1, 0, {}, i));
  const auto drawn = decoder.sample(specs);
  for (size_t i = 0; i < drawn.size(); ++i)
    CHECK(drawn[i].token == logits[static_cast<int64_t>(i % 2)].argmax().item<int64_t>());
  CHECK_THROWS_WITH(decoder.sample(std::vector{cuda::sample_spec(2, 1, 0, 1, 0, {}, 0)}),
                    "the GPU engine: row 2 of 2 is to be drawn");
  // Weights that have gone wrong.
  decoder.set("model.norm.weight", at::full({32}, NAN));
  Sequence b{a.tokens, {2, 3}};
  CachedRows rows;
  add_rows(rows, b, 1);
  decoder.run(rows);
  CHECK_THROWS_AS(decoder.sample(std::vector{cuda::sample_spec(0, 1, 0, 1, 0, {}, 0)}), DataError);
}

TEST_CASE("the GPU engine says what it does not compute", "[core][cpu][cuda]") {
  using Catch::Contains;
  CHECK(configs_of_families().size() == 8);
  for (const ModelConfig& config : configs_of_families())
    CHECK(Decoder::unsupported(config).empty());
  CHECK_THAT(Decoder::unsupported(testing::tiny_config()), Contains("head_dim: 6"));
  ModelConfig wide = config_of("llama", false);
  wide.vocab_size = (int64_t{1} << 19) + 1;
  CHECK_THAT(Decoder::unsupported(wide), Contains("vocab_size: 524289 is above"));
  ProcessorDevice device;
  CHECK_THROWS_WITH(Decoder(device, testing::tiny_config(), {}),
                    "the GPU engine does not compute head_dim: 6 is not a multiple of 8");
  CHECK_THROWS_WITH(Decoder(device, config_of("llama", false), {.max_rows = 1, .max_sequences = 2}),
                    Contains("do not fit each other"));
}

TEST_CASE("a step or a weight that does not fit is refused by name", "[core][cpu][cuda]") {
  using Catch::Contains;
  at::manual_seed(9);
  const Transformer model = model_of(config_of("llama", false));
  ProcessorDevice device;
  Decoder decoder(
      device,
      model.config(),
      {.max_rows = 4, .max_sequences = 2, .max_tokens = 8, .block_size = 4, .blocks = 4});
  CHECK_THROWS_WITH(decoder.set("model.norms", at::zeros({1})),
                    Contains("no parameter model.norms"));
  CHECK_THROWS_WITH(decoder.set("model.norm.weight", at::zeros({31})), Contains("wanted [32]"));
  const auto step = [&](int64_t rows, int64_t token, int32_t first) {
    Sequence s{std::vector<int64_t>(40, token), {0, 1, 2, 3}, first};
    CachedRows out;
    add_rows(out, s, rows);
    decoder.run(out, {0});
  };
  step(4, 3, 0);
  CHECK_THROWS_WITH(step(5, 3, 0), Contains("a step of 5 rows"));
  CHECK_THROWS_WITH(step(1, 40, 0), Contains("token 40 at position 0"));
  CHECK_THROWS_WITH(step(1, 3, 8), Contains("at position 8"));
}

}  // namespace praetor
