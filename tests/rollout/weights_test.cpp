#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/model/engine_step.h"
#include "core/model/kernels/packed_weight.h"
#include "rollout/engine.h"
#include "tests/rollout/engine_fixture.h"
#include "tests/support/catch.h"

/// Engines whose weights are of another kind than the model's.
namespace praetor {
namespace {

using testing::generate_all;
using testing::LetterTokenizer;
using testing::same_response;
using testing::tiny_config;
using testing::tiny_model;

const std::vector<WeightKind> kNarrow = {WeightKind::kBfloat16, WeightKind::kInt8};

std::vector<GenerationRequest> requests_of(int64_t count, const SamplingParams& params) {
  RandomStream random({.job_seed = 7});
  std::vector<GenerationRequest> out;
  for (int64_t i = 0; i < count; ++i) {
    GenerationRequest r{.params = params,
                        .key = {.job_seed = 1, .prompt_ordinal = static_cast<uint64_t>(i)}};
    for (uint64_t n = 1 + random.below(20); n > 0; --n)
      r.prompt.push_back(static_cast<int64_t>(random.below(97)));
    out.push_back(r);
  }
  return out;
}

bool is_multiplied_by(const NamedTensor& parameter) {
  return parameter.tensor.dim() == 2 && parameter.name != "model.embed_tokens.weight";
}

/// The model that the kind's weights stand for, in float32.
Transformer dequantised(const Transformer& model, WeightKind kind) {
  Transformer out = model.clone();
  for (const NamedTensor& parameter : out.parameters()) {
    if (!is_multiplied_by(parameter)) continue;
    at::Tensor w = parameter.tensor;
    if (kind == WeightKind::kBfloat16) {
      w.copy_(w.to(at::kBFloat16));
    } else {
      const at::Tensor scale = w.abs().amax(1, /*keepdim=*/true) / 127;
      w.copy_((w / scale).round() * scale);
    }
  }
  return out;
}

/// Greedy continuation, the whole sequence computed again for each token.
std::vector<int64_t> naive_greedy(const Transformer& model,
                                  std::vector<int64_t> tokens,
                                  int64_t count) {
  std::vector<int64_t> out;
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor hidden = model.hidden(pack({tokens}));
    const at::Tensor last = model.logits(hidden.narrow(0, hidden.size(0) - 1, 1));
    out.push_back(last.argmax(-1).item<int64_t>());
    tokens.push_back(out.back());
  }
  return out;
}

}  // namespace

TEST_CASE("greedy responses in narrow weights are those of a naive loop over their values",
          "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  for (const WeightKind kind : kNarrow) {
    Engine engine(model, tokenizer, {.max_sequences = 4, .block_size = 4, .weights = kind});
    const auto requests = requests_of(6, {.max_new_tokens = 20, .temperature = 0});
    const Transformer same = dequantised(model, kind);
    for (const Generation& g : generate_all(engine, requests)) {
      INFO(to_string(kind));
      CHECK(g.tokens == naive_greedy(same, requests[static_cast<size_t>(g.request)].prompt, 20));
    }
  }
}

TEST_CASE("an engine of bfloat16 weights has the bits of a model of the rounded ones",
          "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const Transformer rounded = dequantised(model, WeightKind::kBfloat16);
  const LetterTokenizer tokenizer(97);
  const auto requests = requests_of(5, {.max_new_tokens = 15});
  Engine narrow(model, tokenizer, {.weights = WeightKind::kBfloat16});
  Engine whole(rounded, tokenizer);
  const auto a = generate_all(narrow, requests), b = generate_all(whole, requests);
  REQUIRE(a.size() == 5);
  for (size_t i = 0; i < a.size(); ++i) CHECK(same_response(a[i], b[i]));
}

TEST_CASE("in narrow weights too a response does not depend on what is generated beside it",
          "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  const auto requests = requests_of(12, {.max_new_tokens = 25});
  for (const WeightKind kind : kNarrow) {
    Engine wide(model, tokenizer, {.max_sequences = 12, .block_size = 16, .weights = kind});
    Engine small(model,
                 tokenizer,
                 {.max_sequences = 3, .max_step_tokens = 7, .block_size = 2, .weights = kind});
    const auto together = generate_all(wide, requests);
    const auto apart = generate_all(small, requests);
    REQUIRE(together.size() == 12);
    for (size_t i = 0; i < together.size(); ++i) CHECK(same_response(together[i], apart[i]));
  }
}

TEST_CASE("narrow weights say other log-probabilities than the model, near them",
          "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  const auto requests = requests_of(8, {.max_new_tokens = 20});
  for (const WeightKind kind : kNarrow) {
    Engine engine(model, tokenizer, {.weights = kind});
    double most = 0, sum = 0, count = 0;
    for (const Generation& g : generate_all(engine, requests)) {
      std::vector<int64_t> tokens = requests[static_cast<size_t>(g.request)].prompt;
      const auto prompt = static_cast<int64_t>(tokens.size());
      tokens.insert(tokens.end(), g.tokens.begin(), g.tokens.end());
      const auto length = static_cast<int64_t>(g.tokens.size());
      const at::Tensor own =
          ops::token_logprobs(model.hidden(pack({tokens})).narrow(0, prompt - 1, length),
                              model.head(),
                              at::tensor(g.tokens))
              .logprob;
      for (int64_t i = 0; i < length; ++i) {
        const double away =
            std::abs(own[i].item<double>() - g.model_logprobs[static_cast<size_t>(i)]);
        most = std::max(most, away);
        sum += away;
        ++count;
      }
    }
    INFO(to_string(kind) << ": mean " << sum / count << ", most " << most);
    CHECK(most > 0);
    CHECK(sum / count < 0.2);
  }
}

TEST_CASE("new weights are taken up in the engine's kind", "[rollout][cpu]") {
  const LetterTokenizer tokenizer(97);
  const auto requests = requests_of(4, {.max_new_tokens = 15});
  for (const WeightKind kind : kNarrow) {
    Transformer model = tiny_model();
    Engine engine(model, tokenizer, {.weights = kind});
    const auto before = generate_all(engine, requests);
    model.copy_from(
        Transformer(tiny_config(), RandomStream({.job_seed = 9, .purpose = Purpose::kInitialise})));
    const auto after = generate_all(engine, requests);
    Engine fresh(model, tokenizer, {.weights = kind});
    const auto want = generate_all(fresh, requests);
    REQUIRE(after.size() == 4);
    for (size_t i = 0; i < 4; ++i) {
      CHECK(same_response(after[i], want[i]));
      CHECK_FALSE(same_response(after[i], before[i]));
    }
  }
}

TEST_CASE("both models of a mixture have weights of the engine's kind", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const Transformer other(tiny_config(),
                          RandomStream({.job_seed = 9, .purpose = Purpose::kInitialise}));
  const Transformer model_rounded = dequantised(model, WeightKind::kBfloat16);
  const Transformer other_rounded = dequantised(other, WeightKind::kBfloat16);
  const LetterTokenizer tokenizer(97);
  auto requests = requests_of(4, {.max_new_tokens = 15});
  for (auto& r : requests) r.voice = {.kind = VoiceKind::kMixture, .share = 0.3};
  Engine narrow(model, tokenizer, {.weights = WeightKind::kBfloat16}, &other);
  Engine whole(model_rounded, tokenizer, {}, &other_rounded);
  const auto a = generate_all(narrow, requests), b = generate_all(whole, requests);
  for (size_t i = 0; i < 4; ++i) CHECK(same_response(a[i], b[i]));
}

TEST_CASE("an engine refuses narrow weights of a model that is not float32", "[rollout][cpu]") {
  const Transformer model(
      tiny_config(), RandomStream({.job_seed = 4, .purpose = Purpose::kInitialise}), at::kDouble);
  const LetterTokenizer tokenizer(97);
  CHECK_THROWS_WITH(Engine(model, tokenizer, {.weights = WeightKind::kInt8}),
                    Catch::Contains("weights of kind int8 are made of a float32 model"));
}

}  // namespace praetor
