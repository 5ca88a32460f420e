#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/config/yaml_reader.h"
#include "rollout/engine.h"
#include "rollout/sampling_config.h"
#include "rollout/session.h"
#include "tests/rollout/engine_fixture.h"
#include "tests/support/catch.h"
#include "tests/support/processor_device.h"
#include "tests/support/shared_data.h"

/// The whole engine over the GPU library's decoder, which threads of the processor compute
/// (tests/support/processor_device.h).
namespace praetor {
namespace {

using Catch::Contains;
using testing::generate_all;
using testing::LetterTokenizer;
using testing::ProcessorDevice;
using testing::same_response;
using testing::tiny_config;
using testing::tiny_model;

constexpr int64_t kVocabulary = 97;

EngineConfig on_device(EngineConfig config = {}) {
  config.device = EngineDevice::kCuda;
  config.weights = WeightKind::kBfloat16;
  return config;
}

/// Logits behind every token of prompt and response but the last, by the model in float32.
at::Tensor logits_of(const Transformer& model,
                     const GenerationRequest& request,
                     const Generation& g) {
  std::vector<int64_t> tokens = request.prompt;
  tokens.insert(tokens.end(), g.tokens.begin(), g.tokens.end() - 1);
  const c10::NoGradGuard no_grad;
  const auto first = static_cast<int64_t>(request.prompt.size()) - 1;
  return model.logits(model.hidden(pack({tokens}))).slice(0, first);
}

/// With what a GPU's engine leaves to the processor, now and then.
GenerationRequest varied_request(RandomStream& random, uint32_t number, bool companion) {
  GenerationRequest r = testing::random_request(random, number, kVocabulary);
  r.params.top_k = random.below(3) == 0 ? 20 : 0;
  r.params.repetition_penalty = random.below(5) == 0 ? 1.3 : 1.0;
  r.params.top_logprobs = random.below(5) == 0 ? 2 : 0;
  if (random.below(5) == 0) r.params.processors = {min_new_tokens(3), presence_penalty(0.5)};
  if (companion && random.below(3) == 0) {
    r.voice.kind = random.below(2) == 0 ? VoiceKind::kMixture : VoiceKind::kCompanion;
    r.voice.share = r.voice.kind == VoiceKind::kMixture ? 0.3 : 0;
  }
  return r;
}

bool begins(const Generation& whole, const Generation& part) {
  return part.tokens.size() <= whole.tokens.size() &&
         std::equal(part.tokens.begin(), part.tokens.end(), whole.tokens.begin());
}

}  // namespace

TEST_CASE("an engine on a GPU tells a story model's greedy story", "[rollout][cpu][cuda]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const auto folder = shared / "data" / "stories260K";
  const Transformer model = Transformer::load(folder);
  const auto tokenizer = Tokenizer::load(folder);
  std::vector<GenerationRequest> requests;
  for (const char* text : {"Once upon a time", "Tom and Mia", "The dog"}) {
    requests.push_back({.prompt = tokenizer->encode(text, true),
                        .params = {.max_new_tokens = 30, .temperature = 0}});
  }
  Engine whole(model, *tokenizer);
  ProcessorDevice device;
  Engine engine(model, *tokenizer, on_device(), nullptr, &device);
  const auto wanted = generate_all(whole, requests), got = generate_all(engine, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    // Two tokens that are nearly as likely may change places; the stories part there.
    const at::Tensor logprobs = ops::log_softmax(logits_of(model, requests[i], got[i]));
    for (size_t t = 0; t < got[i].tokens.size(); ++t) {
      const at::Tensor here = logprobs[static_cast<int64_t>(t)];
      const float own = here[got[i].tokens[t]].item<float>();
      CHECK(got[i].model_logprobs[t] == Approx(own).margin(0.06));
      CHECK(own > here.max().item<float>() - 0.06F);
    }
    CHECK(std::equal(got[i].tokens.begin(), got[i].tokens.begin() + 20, wanted[i].tokens.begin()));
  }
  CHECK(device.replays() > 20);  // decoding was recorded
}

TEST_CASE(
    "an engine on a GPU follows the processor's in families with windows, caps and rotations "
    "that switch",
    "[rollout][cpu][cuda]") {
  std::vector<ModelConfig> configs(3, tiny_config());
  configs[0].architecture = "gpt2";
  configs[0].num_kv_heads = configs[0].num_heads;
  configs[0].attention_bias = configs[0].output_bias = configs[0].mlp_bias = true;
  configs[1].architecture = "gemma2";
  configs[1].sliding_window = 9;
  configs[1].windowed_layers = {true, false};
  configs[1].query_scalar = 12;
  configs[1].attention_softcap = 20;
  configs[1].logit_softcap = 10;
  configs[2].architecture = "phi3";  // sequences of more than 16 tokens are rotated otherwise
  configs[2].rope.scaling = "longrope";
  configs[2].rope.original_max_positions = 16;
  configs[2].rope.short_factor = {1, 1.5, 2, 2};
  configs[2].rope.long_factor = {2, 4, 8, 8};
  const LetterTokenizer tokenizer(kVocabulary);
  for (const ModelConfig& config : configs) {
    INFO(config.architecture);
    const Transformer model(config, RandomStream({.job_seed = 11}));
    RandomStream random({.job_seed = 12});
    std::vector<GenerationRequest> requests;
    for (const int64_t length : {3, 10, 15, 30}) {
      requests.push_back({.params = {.max_new_tokens = 20, .temperature = 0}});
      for (int64_t i = 0; i < length; ++i)
        requests.back().prompt.push_back(static_cast<int64_t>(random.below(kVocabulary)));
    }
    ProcessorDevice device;
    Engine whole(model, tokenizer);
    Engine engine(model, tokenizer, on_device(), nullptr, &device);
    const auto wanted = generate_all(whole, requests), got = generate_all(engine, requests);
    size_t compared = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      // The two part where another token becomes the likeliest by a rounding.
      const size_t most = std::min(wanted[i].tokens.size(), got[i].tokens.size());
      for (size_t t = 0; t < most; ++t, ++compared) {
        CHECK(got[i].model_logprobs[t] == Approx(wanted[i].model_logprobs[t]).margin(0.15));
        if (got[i].tokens[t] != wanted[i].tokens[t]) break;
      }
    }
    CHECK(compared > 40);
  }
}

TEST_CASE("with one key a GPU draws what the processor draws but where rounding decides",
          "[rollout][cpu][cuda]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const auto folder = shared / "data" / "stories260K";
  const Transformer model = Transformer::load(folder);
  const auto tokenizer = Tokenizer::load(folder);
  std::vector<GenerationRequest> requests;
  for (uint64_t i = 0; i < 4; ++i) {
    requests.push_back({.prompt = tokenizer->encode("One day, a big bear", true),
                        .params = {.max_new_tokens = 25,
                                   .temperature = i % 2 == 0 ? 1.0 : 0.7,
                                   .top_k = i < 2 ? 0 : 50,
                                   .top_p = i == 3 ? 0.9 : 1.0},
                        .key = {.job_seed = 3, .prompt_ordinal = i},
                        .samples = 2});
  }
  ProcessorDevice device;
  Engine engine(model, *tokenizer, on_device(), nullptr, &device);
  Sampler sampler;
  int64_t drawn = 0, same = 0;
  for (const Generation& g : generate_all(engine, requests)) {
    const GenerationRequest& request = requests[static_cast<size_t>(g.request)];
    const at::Tensor logits = logits_of(model, request, g);
    std::vector<SampleRow> rows;
    SampleKey key = request.key;
    key.sample_index = static_cast<uint32_t>(g.sample);
    for (size_t t = 0; t < g.tokens.size(); ++t)
      rows.push_back({static_cast<int64_t>(t), &request.params, key, static_cast<uint32_t>(t)});
    std::vector<SampledToken> wanted;
    sampler.sample(logits.contiguous(), rows, wanted);
    for (size_t t = 0; t < g.tokens.size(); ++t) {
      ++drawn;
      if (g.tokens[t] != wanted[t].token) continue;
      ++same;
      CHECK(g.model_logprobs[t] == Approx(wanted[t].model_logprob).margin(0.1));
      CHECK(g.behavior_logprobs[t] == Approx(wanted[t].behavior_logprob).margin(0.15));
      if (reshapes(request.params))
        CHECK(g.sampled_logprobs[t] == Approx(wanted[t].sampled_logprob).margin(0.15));
    }
  }
  CHECK(drawn > 150);
  CHECK(same >= drawn * 96 / 100);
}

TEST_CASE("requests that come and go on a GPU give what each gives alone", "[rollout][cpu][cuda]") {
  const Transformer model = tiny_model();
  const Transformer other(tiny_config(),
                          RandomStream({.job_seed = 9, .purpose = Purpose::kInitialise}));
  const LetterTokenizer tokenizer(kVocabulary);
  ProcessorDevice device;
  const int64_t all_free = device.free_bytes();
  Engine alone(model,
               tokenizer,
               on_device({.max_sequences = 1, .max_step_tokens = 100, .block_size = 4}),
               &other,
               &device);
  int64_t preempted = 0, cancelled = 0, accepted = 0, adopted = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    INFO("seed " << seed);
    RandomStream random({.job_seed = seed});
    const auto slots = 1 + static_cast<int64_t>(random.below(6));
    // A block of both models takes 1,024 bytes; the longest sequence has 50 tokens.
    Engine engine(model,
                  tokenizer,
                  on_device({.max_sequences = slots,
                             .max_step_tokens = slots + static_cast<int64_t>(random.below(40)),
                             .block_size = 4,
                             .cache_bytes = 1024 * (14 + static_cast<int64_t>(random.below(30))),
                             .draft_tokens = static_cast<int64_t>(seed % 2) * 4}),
                  &other,
                  &device);
    Session session(engine);
    std::vector<GenerationRequest> requests;
    std::map<int64_t, std::vector<Generation>> ended;
    for (uint64_t steps = 0;; ++steps) {
      REQUIRE(steps < 10000);
      if (requests.size() < 20 && random.below(2) == 0) {
        requests.push_back(
            varied_request(random, static_cast<uint32_t>(requests.size()), /*companion=*/true));
        session.submit(requests.back(), {.on_finish = [&](Generation&& g) {
                         ended[g.request].push_back(std::move(g));
                       }});
      }
      if (!requests.empty() && random.below(10) == 0)
        session.cancel(static_cast<int64_t>(random.below(requests.size())));
      if (!session.step() && requests.size() == 20) break;
    }
    CHECK(session.open() == 0);
    CHECK(session.used_blocks() == 0);
    preempted += session.stats().preemptions;
    accepted += session.stats().accepted;
    adopted += session.stats().adopted_rows;
    for (size_t i = 0; i < requests.size(); ++i) {
      INFO("request " << i);
      const auto whole = generate_all(alone, {requests[i]});
      std::vector<Generation>& made = ended[static_cast<int64_t>(i)];
      std::sort(made.begin(), made.end(), [](const auto& a, const auto& b) {
        return a.sample < b.sample;
      });
      REQUIRE(made.size() == whole.size());
      for (size_t k = 0; k < made.size(); ++k) {
        if (made[k].finish == FinishReason::kCancelled) {
          ++cancelled;
          CHECK(begins(whole[k], made[k]));
        } else {
          CHECK(same_response(made[k], whole[k]));
        }
      }
    }
  }
  CHECK(preempted > 10);
  CHECK(cancelled > 20);
  CHECK(accepted > 10);
  CHECK(adopted > 300);
  // What an engine took of the GPU's memory went with it.
  const int64_t kept = all_free - device.free_bytes();
  {
    Engine engine(model, tokenizer, on_device(), nullptr, &device);
    generate_all(engine, {{.prompt = {1, 2, 3}, .params = {.max_new_tokens = 5}}});
    CHECK(all_free - device.free_bytes() > kept);
  }
  CHECK(all_free - device.free_bytes() == kept);
}

TEST_CASE("what is drawn on the processor from a GPU's logits is what is drawn there",
          "[rollout][cpu][cuda]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(kVocabulary);
  ProcessorDevice device;
  Engine engine(model, tokenizer, on_device(), nullptr, &device);
  std::vector<GenerationRequest> there, here;
  for (uint64_t i = 0; i < 8; ++i) {
    there.push_back({.prompt = {static_cast<int64_t>(i), 4, 5},
                     .params = {.max_new_tokens = 20,
                                .temperature = i == 0 ? 0.0 : 0.8,
                                .top_k = i % 2 == 0 ? 0 : 30,
                                .top_p = i % 3 == 0 ? 0.9 : 1.0},
                     .key = {.job_seed = 5, .prompt_ordinal = i},
                     .samples = 2});
    here.push_back(there.back());
    here.back().params.top_logprobs = 1;  // wanted of the sampler alone
  }
  const auto a = generate_all(engine, there), b = generate_all(engine, here);
  for (size_t i = 0; i < a.size(); ++i) {
    REQUIRE(a[i].tokens == b[i].tokens);
    REQUIRE(b[i].top_logprobs.size() == b[i].tokens.size());
    for (size_t t = 0; t < a[i].tokens.size(); ++t) {
      CHECK(a[i].model_logprobs[t] == Approx(b[i].model_logprobs[t]).margin(4e-6));
      CHECK(a[i].behavior_logprobs[t] == Approx(b[i].behavior_logprobs[t]).margin(4e-6));
    }
    CHECK(a[i].sampled_logprobs.size() == b[i].sampled_logprobs.size());
  }
}

TEST_CASE("a mixture on a GPU is that of both models' logits", "[rollout][cpu][cuda]") {
  const Transformer model = tiny_model();
  const Transformer other(tiny_config(),
                          RandomStream({.job_seed = 9, .purpose = Purpose::kInitialise}));
  const LetterTokenizer tokenizer(kVocabulary);
  ProcessorDevice device;
  Engine engine(model, tokenizer, on_device(), &other, &device);
  GenerationRequest request{.prompt = {1, 2, 3, 4}, .params = {.max_new_tokens = 20}};
  request.voice = {.kind = VoiceKind::kMixture, .share = 0.4};
  const Generation g = generate_all(engine, {request}).at(0);
  const at::Tensor mixed = logits_of(model, request, g) * 0.6 + logits_of(other, request, g) * 0.4;
  const at::Tensor logprobs = ops::log_softmax(mixed);
  for (size_t t = 0; t < g.tokens.size(); ++t) {
    const auto row = static_cast<int64_t>(t);
    CHECK(g.model_logprobs[t] == Approx(logprobs[row][g.tokens[t]].item<float>()).margin(0.5));
  }
  // Neither model alone is near it.
  const at::Tensor alone = ops::log_softmax(logits_of(model, request, g));
  double apart = 0, from_mixture = 0;
  for (size_t t = 0; t < g.tokens.size(); ++t) {
    const auto row = static_cast<int64_t>(t);
    const float got = g.model_logprobs[t];
    apart += std::abs(alone[row][g.tokens[t]].item<float>() - got);
    from_mixture += std::abs(logprobs[row][g.tokens[t]].item<float>() - got);
  }
  CHECK(apart > 5 * from_mixture);
}

TEST_CASE("weights that have changed, and they alone, are brought to the GPU between two tokens",
          "[rollout][cpu][cuda]") {
  Transformer model = tiny_model();
  const LetterTokenizer tokenizer(kVocabulary);
  ProcessorDevice device;
  Engine engine(model, tokenizer, on_device({.block_size = 4}), nullptr, &device);
  const GenerationRequest request{.prompt = {5, 6, 7, 8, 9, 10},
                                  .params = {.max_new_tokens = 12, .temperature = 0}};
  Session session(engine);
  std::vector<Generation> ended;
  session.submit(request, {.on_finish = [&](Generation&& g) { ended.push_back(std::move(g)); }});
  for (int i = 0; i < 5; ++i) session.step();
  const int64_t before = device.uploads();
  session.step();
  const int64_t of_a_step = device.uploads() - before;
  CHECK(of_a_step <= 2);  // the step's rows, the draws
  const at::Tensor embedding = model.parameters().front().tensor;
  at::Tensor(embedding).mul_(1.5);
  session.weights_replaced(4, /*recompute=*/true);
  const int64_t changed = device.uploads();
  session.step();
  CHECK(device.uploads() - changed == of_a_step + 1);
  while (session.step()) {
  }
  CHECK(ended.at(0).versions == std::vector<int64_t>{0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4});
  // The rest is what the new weights say to the same beginning.
  GenerationRequest rest = request;
  rest.prompt.insert(rest.prompt.end(), ended[0].tokens.begin(), ended[0].tokens.begin() + 6);
  rest.params.max_new_tokens = 6;
  Engine fresh(model, tokenizer, on_device({.block_size = 4}), nullptr, &device);
  const Generation wanted = generate_all(fresh, {rest}).at(0);
  CHECK(std::equal(wanted.tokens.begin(), wanted.tokens.end(), ended[0].tokens.begin() + 6));
  // Other memory in a parameter's place is noticed as well, between calls.
  model = Transformer(tiny_config(), RandomStream({.job_seed = 77}));
  Engine again(model, tokenizer, on_device(), nullptr, &device);
  const auto a = generate_all(again, {request});
  for (const NamedTensor& p : model.parameters()) at::Tensor(p.tensor).mul_(0.5);
  const auto b = generate_all(again, {request});
  Engine last(model, tokenizer, on_device(), nullptr, &device);
  CHECK(same_response(b.at(0), generate_all(last, {request}).at(0)));
  CHECK_FALSE(same_response(a.at(0), b.at(0)));
}

TEST_CASE("the cache takes what the GPU has free, or what it may", "[rollout][cpu][cuda]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(kVocabulary);
  const GenerationRequest request{.prompt = {1, 2, 3}, .params = {.max_new_tokens = 70}};
  // 512 bytes hold 4 tokens; 73 tokens need 19 blocks.
  {
    ProcessorDevice device(1, 600 << 10);
    Engine engine(
        model,
        tokenizer,
        on_device({.max_sequences = 2, .max_step_tokens = 8, .block_size = 4, .cache_bytes = 0}),
        nullptr,
        &device);
    const Session session(engine);
    CHECK(device.free_bytes() > 0);
    CHECK(device.free_bytes() < 100 << 10);
  }
  ProcessorDevice device;
  Engine bounded(
      model, tokenizer, on_device({.block_size = 4, .cache_bytes = 10 * 512}), nullptr, &device);
  CHECK_THROWS_WITH(generate_all(bounded, {request}),
                    Contains("73 tokens need 19 cache blocks, and there are 10"));
  CHECK_NOTHROW(generate_all(
      bounded, {{.prompt = {1, 2, 3}, .params = {.max_new_tokens = 10}, .samples = 6}}));
  ProcessorDevice small(1, 20 << 10);
  CHECK_THROWS_AS(Engine(model, tokenizer, on_device(), nullptr, &small), cuda::DeviceMemoryError);
  CHECK(small.free_bytes() == 20 << 10);
}

TEST_CASE("what a GPU does not compute is refused by key", "[rollout][cpu][cuda]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(kVocabulary);
  ProcessorDevice device;
  EngineConfig config = on_device();
  config.weights = WeightKind::kInt8;
  CHECK_THROWS_WITH(Engine(model, tokenizer, config, nullptr, &device),
                    "engine: weights: int8: device cuda multiplies by bfloat16");
  ModelConfig shape = tiny_config();
  shape.head_dim = 6;
  const Transformer narrow(shape, RandomStream({.job_seed = 4}));
  CHECK_THROWS_WITH(Engine(narrow, tokenizer, on_device(), nullptr, &device),
                    "engine: device: cuda does not compute head_dim: 6 is not a multiple of 8 "
                    "(device: cpu does)");
  CHECK_THROWS_WITH(Engine(model, tokenizer, on_device(), &narrow, &device),
                    Contains("head_dim: 6"));
}

TEST_CASE("section engine reads the device and what follows from it", "[rollout][cpu][cuda]") {
  const auto read = [](const std::string& text) {
    const auto document = YamlDocument::parse(text);
    const EngineConfig config = EngineConfig::from_yaml(document->root());
    return std::pair(config, document->errors().empty() ? "" : document->errors().front());
  };
  CHECK(read("{}").first.device == EngineDevice::kCpu);
  const auto [config, error] = read("device: cuda");
  CHECK(error.empty());
  CHECK(config.device == EngineDevice::kCuda);
  CHECK(config.weights == WeightKind::kBfloat16);
  CHECK(config.cache_bytes == 0);
  CHECK_THAT(read("{device: cuda, weights: int8}").second,
             Contains("weights: int8: device cuda multiplies by bfloat16"));
  CHECK_THAT(read("{device: cuda, weights: float32}").second, Contains("multiplies by bfloat16"));
  CHECK_THAT(read("{device: cuda, cache_bytes: 1000}").second, Contains("cache_bytes: 1000"));
  CHECK_THAT(read("cache_bytes: 0").second, Contains("cache_bytes: 0 is not >= 1048576"));
  CHECK_THAT(read("device: rocm").second, Contains("cpu, cuda"));
  CHECK_THROWS_WITH(engine_device_of("rocm"), "rocm is no device of the engine; known: cpu, cuda");
}

}  // namespace praetor
