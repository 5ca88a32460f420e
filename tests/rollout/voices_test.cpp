#include "rollout/voices.h"

#include <ATen/ATen.h>

#include <limits>

#include "core/base/error.h"
#include "core/base/threads.h"
#include "tests/rollout/engine_fixture.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

using testing::generate_all;
using testing::LetterTokenizer;
using testing::same_response;
using testing::tiny_config;
using testing::tiny_model;

// Other weights and another shape than tiny_model's; its vocabulary and positions.
Transformer other_model(int64_t max_positions = 80) {
  ModelConfig c = tiny_config();
  c.hidden_size = 24;
  c.intermediate_size = 40;
  c.num_layers = 3;
  c.num_heads = 3;
  c.num_kv_heads = 1;
  c.max_positions = max_positions;
  return Transformer(c, RandomStream({.job_seed = 9, .purpose = Purpose::kInitialise}));
}

constexpr Voice kCompanion{.kind = VoiceKind::kCompanion};

constexpr Voice mixture(double share) {
  return {.kind = VoiceKind::kMixture, .share = share};
}

// Prompts of 1 to 40 tokens.
std::vector<GenerationRequest> some_requests(int64_t count,
                                             const SamplingParams& params,
                                             const Voice& voice) {
  RandomStream random({.job_seed = 31});
  std::vector<GenerationRequest> requests;
  for (int64_t i = 0; i < count; ++i) {
    GenerationRequest r{.params = params,
                        .key = {.job_seed = 8, .prompt_ordinal = static_cast<uint64_t>(i)},
                        .voice = voice};
    for (uint64_t n = 1 + random.below(40); n > 0; --n) {
      r.prompt.push_back(static_cast<int64_t>(random.below(97)));
    }
    requests.push_back(r);
  }
  return requests;
}

// Policy, companion and mixtures of several shares, with all kinds of parameters.
std::vector<GenerationRequest> all_voices(int64_t count) {
  auto requests = some_requests(count, {.max_new_tokens = 25}, {});
  for (size_t i = 0; i < requests.size(); ++i) {
    GenerationRequest& r = requests[i];
    if (i % 4 == 1) r.voice = kCompanion;
    if (i % 4 >= 2) r.voice = mixture(0.125 * static_cast<double>(1 + i % 7));
    if (i % 3 == 1) r.params.temperature = 0.8;
    if (i % 5 == 2) r.params.top_p = 0.9;
    if (i % 5 == 3) r.params.repetition_penalty = 1.2;
    if (i % 6 == 5) r.params.temperature = 0.0;
    r.params.max_new_tokens -= static_cast<int64_t>(i % 9);
  }
  return requests;
}

std::string refusal(Engine& engine, const GenerationRequest& request) {
  try {
    engine.generate({&request, 1}, [](Generation&&) { return true; });
  } catch (const InvalidArgument& failure) {
    return failure.what();
  }
  return "";
}

// Logits of `model` behind `tokens`, all computed afresh.
at::Tensor naive_logits(const Transformer& model, const std::vector<int64_t>& tokens) {
  return model.logits(model.hidden(pack({tokens})).slice(0, -1)).squeeze(0);
}

int64_t naive_draw(const at::Tensor& probabilities, double u) {
  const at::Tensor sums = probabilities.cumsum(0);
  return sums.gt(u * sums[-1].item<double>()).nonzero()[0].item<int64_t>();
}

struct NaiveStep {
  int64_t token;
  double model_logprob;
  double behavior_logprob;
};

// One token of a mixture by the book: log-softmax of both models, averaged, in float64.
NaiveStep naive_step(const Transformer& policy,
                     const Transformer& companion,
                     const GenerationRequest& request,
                     const std::vector<int64_t>& tokens) {
  const double share = request.voice.share;
  const double temperature = request.params.temperature;
  const auto logprobs = [&](const Transformer& model, double divisor) {
    return at::log_softmax(naive_logits(model, tokens).to(at::kDouble) / divisor, 0);
  };
  const auto mixed = [&](double divisor) {
    return at::log_softmax(
        (1 - share) * logprobs(policy, divisor) + share * logprobs(companion, divisor), 0);
  };
  const at::Tensor plain = mixed(1.0);
  const at::Tensor tempered = temperature == 0 ? plain : mixed(temperature);
  const auto position = static_cast<uint32_t>(tokens.size() - request.prompt.size());
  const int64_t token = temperature == 0
                            ? plain.argmax().item<int64_t>()
                            : naive_draw(tempered.exp(), uniform(request.key, position));
  return {token, plain[token].item<double>(), tempered[token].item<double>()};
}

}  // namespace

TEST_CASE("mixed logits are the normalised geometric mixture", "[rollout][cpu]") {
  // Logits up to a constant, which must cancel.
  const at::Tensor policy = at::tensor({0.7F, 0.2F, 0.1F}).log().add(4.0).unsqueeze(0);
  const at::Tensor companion = at::tensor({0.2F, 0.5F, 0.3F}).log().sub(2.0).unsqueeze(0);
  const std::vector<VoicedRow> rows = {{.row = {0, 0}, .share = 0.5},
                                       {.row = {0, -1}},
                                       {.row = {-1, 0}},
                                       {.row = {0, 0}, .share = 0.125}};
  const at::Tensor mixed = mix_voices({policy, companion}, rows);
  CHECK(at::equal(mixed[1], policy[0]));
  CHECK(at::equal(mixed[2], companion[0]));
  const auto near = [](const at::Tensor& logits, const std::vector<double>& wanted) {
    return at::allclose(logits.to(at::kDouble).softmax(0), at::tensor(wanted), 0, 1e-6);
  };
  CHECK(near(mixed[0], {0.433263, 0.366174, 0.200562}));
  CHECK(near(mixed[3], {0.638420, 0.239215, 0.122365}));

  // Rows that have their places in the policy's logits are mixed there, to the same bits.
  const at::Tensor twice = at::cat({policy, policy});
  const std::vector<VoicedRow> in_place = {{.row = {0, -1}}, {.row = {1, 0}, .share = 0.125}};
  CHECK(mix_voices({twice, companion}, in_place).is_same(twice));
  CHECK(at::equal(twice[0], policy[0]));
  CHECK(at::equal(twice[1], mixed[3]));
}

TEST_CASE("logits of one model alone are passed on as they are", "[rollout][cpu]") {
  const at::Tensor logits = at::rand({3, 5});
  const std::vector<VoicedRow> rows(3);
  CHECK(mix_voices({logits, at::Tensor()}, rows).is_same(logits));
  CHECK(mix_voices({at::Tensor(), logits}, rows).is_same(logits));
}

TEST_CASE("a mixture's responses equal those of two models without a cache", "[rollout][cpu]") {
  const Transformer policy = tiny_model();
  const Transformer companion = other_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(
      policy, tokenizer, {.max_sequences = 5, .max_step_tokens = 20, .block_size = 4}, &companion);
  for (const double temperature : {1.0, 0.7, 0.0}) {
    for (const double share : {0.125, 0.5, 0.9}) {
      const auto requests =
          some_requests(6, {.max_new_tokens = 20, .temperature = temperature}, mixture(share));
      INFO("temperature " << temperature << ", share " << share);
      for (const Generation& g : generate_all(engine, requests)) {
        const GenerationRequest& request = requests[static_cast<size_t>(g.request)];
        std::vector<int64_t> tokens = request.prompt;
        REQUIRE(g.tokens.size() == 20);
        for (size_t t = 0; t < g.tokens.size(); ++t) {
          const NaiveStep wanted = naive_step(policy, companion, request, tokens);
          REQUIRE(g.tokens[t] == wanted.token);
          CHECK(g.model_logprobs[t] == Approx(wanted.model_logprob).margin(1e-5));
          CHECK(g.behavior_logprobs[t] == Approx(wanted.behavior_logprob).margin(1e-5));
          tokens.push_back(g.tokens[t]);
        }
      }
    }
  }
}

TEST_CASE("the companion's voice is an engine of the companion alone", "[rollout][cpu]") {
  const Transformer policy = tiny_model();
  // Fewer positions than the policy: long prompts end their responses earlier.
  const Transformer companion = other_model(48);
  const LetterTokenizer tokenizer(97);
  Engine both(policy, tokenizer, {}, &companion);
  Engine alone(companion, tokenizer);
  auto requests = some_requests(9, {.max_new_tokens = 20, .temperature = 0.9, .top_k = 30}, {});
  const auto wanted = generate_all(alone, requests);
  const auto as_policy = generate_all(both, requests);
  for (auto& r : requests) r.voice = kCompanion;
  const auto made = generate_all(both, requests);
  REQUIRE(made.size() == wanted.size());
  bool cut = false;
  for (size_t i = 0; i < made.size(); ++i) {
    CHECK(same_response(made[i], wanted[i]));
    CHECK_FALSE(same_response(made[i], as_policy[i]));
    CHECK(as_policy[i].tokens.size() == 20);
    cut = cut || made[i].tokens.size() < 20;
  }
  CHECK(cut);
}

TEST_CASE("a mixture ends at the last position that both models have", "[rollout][cpu]") {
  const Transformer policy = tiny_model();
  const Transformer companion = other_model(48);
  const LetterTokenizer tokenizer(97);
  Engine engine(policy, tokenizer, {}, &companion);
  GenerationRequest request{.prompt = std::vector<int64_t>(40, 3),
                            .params = {.max_new_tokens = 100},
                            .voice = mixture(0.5)};
  CHECK(generate_all(engine, {request})[0].tokens.size() == 8);
  request.voice = {};
  CHECK(generate_all(engine, {request})[0].tokens.size() == 40);
  request.prompt.assign(48, 3);
  CHECK(refusal(engine, request).empty());
  request.voice = mixture(0.5);
  CHECK_THAT(refusal(engine, request),
             Catch::Matchers::Contains("48 tokens") && Catch::Matchers::Contains("48 positions"));
}

TEST_CASE("a response does not depend on the voices beside it", "[rollout][cpu]") {
  const Transformer policy = tiny_model();
  const Transformer companion = other_model();
  const LetterTokenizer tokenizer(97);
  const auto requests = all_voices(21);
  const int before = threads();
  set_threads(1);
  std::vector<Generation> alone;
  {
    Engine engine(policy, tokenizer, {.max_sequences = 1, .max_step_tokens = 1000}, &companion);
    for (const GenerationRequest& r : requests) alone.push_back(generate_all(engine, {r})[0]);
  }
  const auto compare = [&](const EngineConfig& config) {
    Engine engine(policy, tokenizer, config, &companion);
    const auto made = generate_all(engine, requests);
    REQUIRE(made.size() == requests.size());
    INFO("max_sequences " << config.max_sequences << ", max_step_tokens " << config.max_step_tokens
                          << ", block_size " << config.block_size << ", threads " << threads());
    for (size_t i = 0; i < made.size(); ++i) CHECK(same_response(made[i], alone[i]));
    return engine.stats();
  };
  // Bytes of a block of four tokens: two layers of two heads, three of one, of eight floats.
  const int64_t bytes = (2 * 2 + 3 * 1) * 2 * 4 * 8 * 4;
  for (const int count : {1, 2}) {
    set_threads(count);
    compare({});
    for (const int64_t neighbours : {2, 5, 9}) {
      compare({.max_sequences = neighbours, .max_step_tokens = neighbours + 7});
    }
    const EngineStats short_of_blocks = compare({.block_size = 4, .cache_bytes = 24 * bytes});
    CHECK(short_of_blocks.preemptions > 0);
    CHECK(short_of_blocks.peak_blocks <= 24);
  }
  set_threads(before);
}

TEST_CASE("a policy in training is sampled beside its companion as any other", "[rollout][cpu]") {
  Transformer policy = tiny_model();
  const Transformer companion = other_model();
  const LetterTokenizer tokenizer(97);
  const GenerationRequest request{.prompt = {3, 5, 7},
                                  .params = {.max_new_tokens = 10},
                                  .voice = {.kind = VoiceKind::kMixture, .share = 0.4}};
  const int before = threads();
  set_threads(2);
  Engine engine(policy, tokenizer, {}, &companion);
  const auto frozen = generate_all(engine, {request});
  policy.set_requires_grad(true);
  const auto training = generate_all(engine, {request});
  set_threads(before);
  REQUIRE(frozen.size() == 1);
  CHECK(same_response(frozen[0], training[0]));
}

TEST_CASE("a companion equal to the policy leaves every mixture the policy's", "[rollout][cpu]") {
  const Transformer policy = tiny_model();
  const Transformer companion = policy.clone();
  const LetterTokenizer tokenizer(97);
  Engine engine(policy, tokenizer, {}, &companion);
  auto requests = some_requests(5, {.max_new_tokens = 15, .temperature = 0.8}, {});
  const auto own = generate_all(engine, requests);
  for (const double share : {0.01, 0.3, 0.5, 0.99}) {
    for (auto& r : requests) r.voice = mixture(share);
    const auto mixed = generate_all(engine, requests);
    REQUIRE(mixed.size() == own.size());
    for (size_t i = 0; i < own.size(); ++i) {
      CHECK(mixed[i].tokens == own[i].tokens);
      for (size_t t = 0; t < own[i].tokens.size(); ++t) {
        CHECK(mixed[i].model_logprobs[t] == Approx(own[i].model_logprobs[t]).margin(1e-5));
        CHECK(mixed[i].behavior_logprobs[t] == Approx(own[i].behavior_logprobs[t]).margin(1e-5));
      }
    }
  }
}

TEST_CASE("the n samples of a mixture share their prompt in both caches", "[rollout][cpu]") {
  const Transformer policy = tiny_model();
  const Transformer companion = other_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(
      policy, tokenizer, {.max_sequences = 4, .max_step_tokens = 16, .block_size = 4}, &companion);
  // A prompt that ends within a block, so that every fork but one copies it.
  GenerationRequest request{.prompt = {1, 2, 3, 4, 5, 6},
                            .params = {.max_new_tokens = 5, .temperature = 0.9},
                            .key = {.job_seed = 12},
                            .samples = 3,
                            .voice = mixture(0.4)};
  const auto together = generate_all(engine, {request});
  CHECK(engine.stats().prefill_rows == 6);
  CHECK(engine.stats().decode_rows == 3 * 4);
  CHECK(engine.stats().steps == 5);
  CHECK(engine.stats().peak_blocks == 1 + 3 * 2);
  REQUIRE(together.size() == 3);
  request.samples = 1;
  for (uint32_t k = 0; k < 3; ++k) {
    request.key.sample_index = k;
    CHECK(same_response(generate_all(engine, {request})[0], together[k]));
  }
  CHECK(together[0].tokens != together[1].tokens);
}

TEST_CASE("calls of different voices take turns on one engine", "[rollout][cpu]") {
  const Transformer policy = tiny_model();
  const Transformer companion = other_model();
  const LetterTokenizer tokenizer(97);
  // So little that one model's cache leaves no room for the other's.
  const int64_t bytes = (2 * 2 + 3 * 1) * 2 * 16 * 8 * 4;
  Engine small(policy, tokenizer, {.cache_bytes = 5 * bytes}, &companion);
  Engine large(policy, tokenizer, {}, &companion);
  const auto in_turn = [&](const Voice& voice) {
    const auto requests = some_requests(7, {.max_new_tokens = 20}, voice);
    const auto made = generate_all(small, requests);
    const auto wanted = generate_all(large, requests);
    REQUIRE(made.size() == wanted.size());
    for (size_t i = 0; i < made.size(); ++i) CHECK(same_response(made[i], wanted[i]));
    return small.stats().peak_blocks;
  };
  for (int round = 0; round < 2; ++round) {
    CHECK(in_turn({}) == 5 * 7 / 4);
    CHECK(in_turn(mixture(0.5)) == 5);
    CHECK(in_turn(kCompanion) == 5 * 7 / 3);
  }
}

TEST_CASE("voices that cannot be met are refused", "[rollout][cpu]") {
  using Catch::Matchers::Contains;
  const Transformer policy = tiny_model();
  const Transformer companion = other_model();
  const LetterTokenizer tokenizer(97);
  Engine lonely(policy, tokenizer);
  const auto of = [](const Voice& voice) {
    return GenerationRequest{.prompt = {1}, .voice = voice};
  };
  CHECK_THAT(refusal(lonely, of(kCompanion)), Contains("request 0: its voice needs a companion"));
  CHECK_THAT(refusal(lonely, of(mixture(0.5))), Contains("request 0: its voice needs a companion"));
  Engine engine(policy, tokenizer, {}, &companion);
  for (const double share : {0.0, 1.0, -0.5, std::numeric_limits<double>::quiet_NaN()}) {
    CHECK_THAT(refusal(engine, of(mixture(share))), Contains("is outside (0, 1)"));
  }
  CHECK(refusal(engine, of(kCompanion)).empty());

  ModelConfig wide = tiny_config();
  wide.vocab_size = 98;
  const Transformer stranger(wide, RandomStream({.job_seed = 1}));
  CHECK_THROWS_WITH(Engine(policy, tokenizer, {}, &stranger),
                    Contains("companion's vocabulary of 98") && Contains("policy's of 97"));
  // A block of both models has 7,168 bytes: two hold 32 tokens of a mixture, or 48 of the policy.
  CHECK_THROWS_WITH(Engine(policy, tokenizer, {.cache_bytes = 7167}, &companion),
                    Contains("cache_bytes: 7167"));
  Engine small(policy, tokenizer, {.cache_bytes = 2 * 7168}, &companion);
  GenerationRequest longer{.prompt = {1}, .params = {.max_new_tokens = 32}};
  CHECK(refusal(small, longer).empty());
  longer.voice = mixture(0.5);
  CHECK_THAT(refusal(small, longer), Contains("33 tokens need 3 cache blocks, and there are 2"));
  longer.params.max_new_tokens = 31;
  CHECK(refusal(small, longer).empty());
}

}  // namespace praetor
