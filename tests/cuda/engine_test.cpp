#include "rollout/engine.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>
#include <vector>

#include "rollout/sampling_config.h"
#include "rollout/session.h"
#include "tests/cuda/gpu.h"
#include "tests/rollout/engine_fixture.h"

// The whole engine on a GPU; tests/rollout/device_engine_test.cpp shows the same on the processor's
// emulation of one.
namespace praetor {
namespace {

using testing::generate_all;
using testing::LetterTokenizer;

constexpr int64_t kVocabulary = 1000;

ModelConfig config_of() {
  ModelConfig config = testing::tiny_config();
  config.vocab_size = kVocabulary;
  config.hidden_size = 256;
  config.intermediate_size = 512;
  config.num_layers = 4;
  config.num_heads = 8;
  config.num_kv_heads = 2;
  config.head_dim = 64;
  config.max_positions = 512;
  config.initializer_range = 0.1;
  return config;
}

EngineConfig on_gpu(EngineConfig config = {}) {
  config.device = EngineDevice::kCuda;
  config.weights = WeightKind::kBfloat16;
  return config;
}

GenerationRequest random_request(RandomStream& random, uint32_t number) {
  GenerationRequest r;
  for (uint64_t i = 0, n = 1 + random.below(200); i < n; ++i)
    r.prompt.push_back(i < 60 ? 3 : static_cast<int64_t>(random.below(kVocabulary)));
  r.params.max_new_tokens = 1 + static_cast<int64_t>(random.below(40));
  r.params.temperature = random.below(3) == 0 ? 0.0 : 0.8;
  r.params.top_p = random.below(2) == 0 ? 1.0 : 0.9;
  r.params.top_k = random.below(3) == 0 ? 20 : 0;
  r.params.top_logprobs = random.below(4) == 0 ? 3 : 0;
  if (random.below(4) == 0) r.params.processors = {presence_penalty(0.5)};
  r.samples = 1 + static_cast<int32_t>(random.below(3));
  r.key = {.job_seed = 1, .prompt_ordinal = number};
  return r;
}

}  // namespace

TEST_CASE("requests that come and go on a GPU have the model's log-probabilities", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  Transformer model(config_of(), RandomStream({.job_seed = 4, .purpose = Purpose::kInitialise}));
  for (const NamedTensor& each : model.parameters())
    each.tensor.copy_(each.tensor.to(at::kBFloat16).to(at::kFloat));
  const LetterTokenizer tokenizer(kVocabulary);
  RandomStream random({.job_seed = 5});
  // 16 tokens of a block are 16 KB: the longest sequences fit, a dozen of them do not.
  Engine engine(model,
                tokenizer,
                on_gpu({.max_sequences = 12,
                        .max_step_tokens = 128,
                        .cache_bytes = 60 * 16384,
                        .draft_tokens = 3}),
                nullptr,
                &gpu);
  std::vector<GenerationRequest> requests;
  std::vector<Generation> ended;
  Session session(engine);
  for (uint64_t steps = 0;; ++steps) {
    REQUIRE(steps < 10000);
    if (requests.size() < 30 && random.below(2) == 0) {
      requests.push_back(random_request(random, static_cast<uint32_t>(requests.size())));
      session.submit(requests.back(),
                     {.on_finish = [&](Generation&& g) { ended.push_back(std::move(g)); }});
    }
    if (!requests.empty() && random.below(20) == 0)
      session.cancel(static_cast<int64_t>(random.below(requests.size())));
    if (!session.step() && requests.size() == 30) break;
  }
  CHECK(session.open() == 0);
  CHECK(session.used_blocks() == 0);
  CHECK(session.stats().preemptions > 0);
  double apart = 0, spread = 0;
  for (const Generation& g : ended) {
    if (g.tokens.empty()) continue;
    std::vector<int64_t> tokens = requests[static_cast<size_t>(g.request)].prompt;
    const auto first = static_cast<int64_t>(tokens.size()) - 1;
    tokens.insert(tokens.end(), g.tokens.begin(), g.tokens.end() - 1);
    const at::Tensor logprobs =
        ops::log_softmax(model.logits(model.hidden(pack({tokens}))).slice(0, first));
    for (size_t t = 0; t < g.tokens.size(); ++t) {
      const at::Tensor here = logprobs[static_cast<int64_t>(t)];
      const double own = here[g.tokens[t]].item<double>();
      apart += (g.model_logprobs[t] - own) * (g.model_logprobs[t] - own);
      spread += (here - here.mean()).square().mean().item<double>();
    }
  }
  // What rounding to bfloat16 does to such a model (decoder_test.cpp).
  CHECK(std::sqrt(apart / spread) < 0.06);
}

TEST_CASE("new weights come to a GPU between two tokens", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  Transformer model(config_of(), RandomStream({.job_seed = 4, .purpose = Purpose::kInitialise}));
  const LetterTokenizer tokenizer(kVocabulary);
  Engine engine(model, tokenizer, on_gpu(), nullptr, &gpu);
  const GenerationRequest request{.prompt = {5, 6, 7}, .params = {.max_new_tokens = 8}};
  const Generation before = generate_all(engine, {request}).at(0);
  for (const NamedTensor& p : model.parameters()) at::Tensor(p.tensor).mul_(1.5);
  const Generation after = generate_all(engine, {request}).at(0);
  CHECK(after.model_logprobs != before.model_logprobs);
  Engine fresh(model, tokenizer, on_gpu(), nullptr, &gpu);
  CHECK(generate_all(fresh, {request}).at(0).tokens == after.tokens);
}

TEST_CASE("the cache takes what a GPU has free, and gives it back", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  const Transformer model(config_of(),
                          RandomStream({.job_seed = 4, .purpose = Purpose::kInitialise}));
  const LetterTokenizer tokenizer(kVocabulary);
  const int64_t free = gpu.free_bytes();
  {
    Engine engine(model, tokenizer, on_gpu({.cache_bytes = 0}), nullptr, &gpu);
    const Session session(engine);
    CHECK(gpu.free_bytes() < free - (int64_t{1} << 30));
  }
  CHECK(gpu.free_bytes() > free - (int64_t{64} << 20));
}

}  // namespace praetor
