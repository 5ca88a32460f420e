#include "rollout/engine.h"

#include <ATen/ATen.h>

#include <stdexcept>

#include "core/base/error.h"
#include "tests/rollout/engine_fixture.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

using testing::generate_all;
using testing::LetterTokenizer;
using testing::same_response;
using testing::tiny_config;
using testing::tiny_model;

std::vector<GenerationRequest> some_requests(int64_t count, const SamplingParams& params) {
  RandomStream random({.job_seed = 77});
  std::vector<GenerationRequest> requests;
  for (int64_t i = 0; i < count; ++i) {
    GenerationRequest r{.params = params,
                        .key = {.job_seed = 1, .prompt_ordinal = static_cast<uint64_t>(i)}};
    for (uint64_t n = 1 + random.below(30); n > 0; --n) {
      r.prompt.push_back(static_cast<int64_t>(random.below(97)));
    }
    requests.push_back(r);
  }
  return requests;
}

/// What the model says of the response's tokens at the request's temperature.
at::Tensor teacher_forced(const Transformer& model,
                          const GenerationRequest& request,
                          const Generation& made) {
  std::vector<int64_t> tokens = request.prompt;
  const auto prompt = static_cast<int64_t>(tokens.size());
  tokens.insert(tokens.end(), made.tokens.begin(), made.tokens.end());
  const at::Tensor hidden =
      model.hidden(pack({tokens})).narrow(0, prompt - 1, static_cast<int64_t>(made.tokens.size()));
  return ops::token_logprobs(
             hidden, model.head(), at::tensor(made.tokens), request.params.temperature)
      .logprob;
}

std::string refusal(Engine& engine, const GenerationRequest& request) {
  bool called = false;
  try {
    engine.generate({&request, 1}, [&](Generation&&) { return called = true; });
  } catch (const InvalidArgument& failure) {
    CHECK_FALSE(called);
    return failure.what();
  }
  return "";
}

}  // namespace

TEST_CASE("the n samples of a prompt equal n single requests", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(model, tokenizer, {.max_sequences = 4, .max_step_tokens = 16, .block_size = 4});
  auto requests = some_requests(5, {.max_new_tokens = 12, .temperature = 0.9, .top_p = 0.95});
  std::vector<GenerationRequest> singles;
  for (GenerationRequest& r : requests) {
    for (uint32_t k = 0; k < 6; ++k) {
      singles.push_back(r);
      singles.back().key.sample_index = 3 + k;
    }
    r.key.sample_index = 3;
    r.samples = 6;
  }
  const auto together = generate_all(engine, requests);
  const auto apart = generate_all(engine, singles);
  REQUIRE(together.size() == 30);
  REQUIRE(apart.size() == 30);
  for (size_t i = 0; i < together.size(); ++i) {
    CHECK(same_response(together[i], apart[i]));
    CHECK(together[i].request == static_cast<int64_t>(i / 6));
    CHECK(together[i].sample == static_cast<int32_t>(i % 6));
  }
  CHECK(together[0].tokens != together[1].tokens);
}

TEST_CASE("log-probabilities equal the teacher-forced model's bit for bit", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(model, tokenizer, {.max_sequences = 8, .max_step_tokens = 20, .block_size = 4});
  for (const double temperature : {1.0, 0.7, 1.9, 0.0}) {
    const SamplingParams params{.max_new_tokens = 20, .temperature = temperature};
    const auto requests = some_requests(9, params);
    for (const Generation& g : generate_all(engine, requests)) {
      std::vector<int64_t> tokens = requests[static_cast<size_t>(g.request)].prompt;
      const auto prompt = static_cast<int64_t>(tokens.size());
      tokens.insert(tokens.end(), g.tokens.begin(), g.tokens.end());
      const auto length = static_cast<int64_t>(g.tokens.size());
      const at::Tensor hidden = model.hidden(pack({tokens})).narrow(0, prompt - 1, length);
      const at::Tensor targets = at::tensor(g.tokens);
      const at::Tensor plain = ops::token_logprobs(hidden, model.head(), targets).logprob;
      const at::Tensor tempered =
          temperature == 0
              ? plain
              : ops::token_logprobs(hidden, model.head(), targets, temperature).logprob;
      CHECK(at::equal(plain, at::tensor(g.model_logprobs)));
      CHECK(at::equal(tempered, at::tensor(g.behavior_logprobs)));
      CHECK(g.sampled_logprobs.empty());
      CHECK(g.kept_masses.empty());
    }
  }
}

TEST_CASE("truncation and penalty are recorded apart from the behaviour policy", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(model, tokenizer);
  const SamplingParams params{.max_new_tokens = 30, .top_k = 5, .repetition_penalty = 1.3};
  for (const Generation& g : generate_all(engine, some_requests(4, params))) {
    REQUIRE(g.sampled_logprobs.size() == g.tokens.size());
    REQUIRE(g.kept_masses.size() == g.tokens.size());
    for (size_t t = 0; t < g.tokens.size(); ++t) {
      CHECK(g.kept_masses[t] < 1.0F);
      CHECK(g.sampled_logprobs[t] <= 0.0F);
    }
  }
}

TEST_CASE("a stop token ends the response and is its last token", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(model, tokenizer);
  auto requests = some_requests(1, {.max_new_tokens = 40});
  const Generation free = generate_all(engine, requests)[0];
  REQUIRE(free.tokens.size() == 40);
  CHECK(free.finish == FinishReason::kLength);
  const int64_t stop = free.tokens[17];
  const auto first = std::find(free.tokens.begin(), free.tokens.end(), stop);
  requests[0].params.stop_tokens = {200, stop};
  const Generation stopped = generate_all(engine, requests)[0];
  CHECK(stopped.finish == FinishReason::kStop);
  CHECK(stopped.tokens == std::vector<int64_t>(free.tokens.begin(), first + 1));
  CHECK(stopped.model_logprobs.size() == stopped.tokens.size());
  requests[0].params.ignore_eos = true;
  CHECK(same_response(generate_all(engine, requests)[0], free));
}

TEST_CASE("a stop string across tokens cuts the text and keeps the tokens", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(model, tokenizer);
  auto requests = some_requests(1, {.max_new_tokens = 40});
  const Generation free = generate_all(engine, requests)[0];
  // One letter a token (special ones have none): the string spans tokens 20 to 22.
  const auto text_to = [&](int64_t count) {
    return tokenizer.decode({free.tokens.data(), static_cast<size_t>(count)}, true);
  };
  const std::string stop = text_to(23).substr(text_to(20).size());
  REQUIRE(stop.size() >= 2);
  const size_t cut = free.text.find(stop);
  requests[0].params.stop_strings = {"?", stop};
  const Generation stopped = generate_all(engine, requests)[0];
  CHECK(stopped.finish == FinishReason::kStop);
  CHECK(stopped.text == free.text.substr(0, cut));
  const auto count = static_cast<int64_t>(stopped.tokens.size());
  CHECK(text_to(count).size() == cut + stop.size());
  CHECK(std::equal(stopped.tokens.begin(), stopped.tokens.end(), free.tokens.begin()));
  CHECK(stopped.model_logprobs.size() == stopped.tokens.size());
  // A string that never comes changes nothing.
  requests[0].params.stop_strings = {"?"};
  CHECK(same_response(generate_all(engine, requests)[0], free));
}

TEST_CASE("a response ends at the model's last position", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(model, tokenizer);
  auto requests = some_requests(1, {.max_new_tokens = 1000});
  requests[0].prompt.assign(79, 5);
  Generation g = generate_all(engine, requests)[0];
  CHECK(g.tokens.size() == 1);
  CHECK(g.finish == FinishReason::kLength);
  requests[0].prompt.assign(50, 5);
  CHECK(generate_all(engine, requests)[0].tokens.size() == 30);
}

TEST_CASE("after a cancel nothing more is delivered and the engine works on", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(model, tokenizer, {.max_sequences = 4, .max_step_tokens = 64});
  auto requests = some_requests(10, {.max_new_tokens = 5});
  for (auto& r : requests) r.samples = 3;
  const auto whole = generate_all(engine, requests);
  for (const size_t wanted : {1, 2, 7}) {
    size_t calls = 0;
    engine.generate(requests, [&](Generation&&) { return ++calls < wanted; });
    CHECK(calls == wanted);
  }
  // All samples of one step end together when they have one token.
  auto short_ones = requests;
  for (auto& r : short_ones) r.params.max_new_tokens = 1;
  size_t calls = 0;
  engine.generate(short_ones, [&](Generation&&) { return ++calls < 2; });
  CHECK(calls == 2);
  // A callback that throws leaves nothing behind either.
  CHECK_THROWS_AS(
      engine.generate(requests, [](Generation&&) -> bool { throw std::runtime_error("no"); }),
      std::runtime_error);
  const auto again = generate_all(engine, requests);
  REQUIRE(again.size() == whole.size());
  for (size_t i = 0; i < whole.size(); ++i) CHECK(same_response(whole[i], again[i]));
}

TEST_CASE("requests that cannot be met are refused before anything runs", "[rollout][cpu]") {
  using Catch::Matchers::Contains;
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(model, tokenizer);
  CHECK_THAT(refusal(engine, {}), Contains("request 0: the prompt is empty"));
  CHECK_THAT(refusal(engine, {.prompt = std::vector<int64_t>(80, 1)}),
             Contains("80 tokens") && Contains("80 positions"));
  CHECK_THAT(refusal(engine, {.prompt = {1, 97}}), Contains("prompt token 97 at position 1"));
  CHECK_THAT(refusal(engine, {.prompt = {-1}}), Contains("prompt token -1"));
  CHECK_THAT(refusal(engine, {.prompt = {1}, .params = {.top_p = 0.0}}), Contains("top_p"));
  CHECK_THAT(refusal(engine, {.prompt = {1}, .samples = 0}), Contains("samples: 0"));
  // Two layers of 2 x 16 x 2 x 8 floats: 4,096 bytes a block; two blocks hold 32 tokens.
  Engine small(model, tokenizer, {.cache_bytes = 8192});
  const GenerationRequest long_one{.prompt = {1}, .params = {.max_new_tokens = 32}};
  CHECK_THAT(refusal(small, long_one), Contains("33 tokens need 3 cache blocks, and there are 2"));
  CHECK(refusal(small, {.prompt = {1}, .params = {.max_new_tokens = 31}}).empty());
}

TEST_CASE("limits of the engine out of range are refused", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  CHECK_THROWS_AS(Engine(model, tokenizer, {.max_sequences = 0}), InvalidArgument);
  CHECK_THROWS_AS(Engine(model, tokenizer, {.max_sequences = 8, .max_step_tokens = 7}),
                  InvalidArgument);
  CHECK_THROWS_AS(Engine(model, tokenizer, {.block_size = 0}), InvalidArgument);
  CHECK_THROWS_AS(Engine(model, tokenizer, {.cache_bytes = 4095}), InvalidArgument);
}

TEST_CASE("no requests is no work", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(model, tokenizer);
  CHECK(generate_all(engine, {}).empty());
  CHECK(engine.stats().steps == 0);
}

TEST_CASE("the statistics count rows, steps and tokens", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(model, tokenizer, {.max_sequences = 8, .max_step_tokens = 64, .block_size = 4});
  const std::vector<GenerationRequest> requests = {
      {.prompt = {1, 2, 3, 4, 5, 6}, .params = {.max_new_tokens = 5}, .samples = 3}};
  generate_all(engine, requests);
  const EngineStats& stats = engine.stats();
  CHECK(stats.responses == 3);
  CHECK(stats.tokens == 15);
  CHECK(stats.prefill_rows == 6);
  CHECK(stats.decode_rows == 3 * 4);
  CHECK(stats.steps == 5);
  CHECK(stats.mean_batch() == Approx(18.0 / 5));
  CHECK(stats.preemptions == 0);
  // One full block shared; then each its own partial one, and one more from position 8 on.
  CHECK(stats.peak_blocks == 1 + 3 * 2);
  CHECK(stats.seconds > 0);
}

TEST_CASE(
    "responses go on under weights that replace theirs, which say the rest's log-probabilities",
    "[rollout][cpu]") {
  Transformer model = tiny_model();
  const Transformer before = tiny_model();
  const LetterTokenizer tokenizer(97);
  Engine engine(model, tokenizer, {.max_sequences = 3, .block_size = 4});
  const auto requests = some_requests(6, {.max_new_tokens = 10, .temperature = 0.8});
  int64_t asked = 0;
  engine.set_refresh([&]() -> std::optional<int64_t> {
    if (++asked != 8) return std::nullopt;
    for (const NamedTensor& p : model.parameters()) at::Tensor(p.tensor).mul_(1.25);
    return 5;
  });
  const auto made = generate_all(engine, requests);
  REQUIRE(made.size() == 6);
  int64_t whole_old = 0, whole_new = 0, mixed = 0;
  for (const Generation& one : made) {
    const auto old = static_cast<size_t>(std::ranges::count(one.versions, 0));
    const bool none = one.versions.empty();
    whole_old += none ? 1 : 0;
    whole_new += !none && old == 0 ? 1 : 0;
    mixed += old > 0 ? 1 : 0;
    // Each token's is, bit for bit, what its own weights say after the tokens before it.
    const GenerationRequest& request = requests[static_cast<size_t>(one.request)];
    const at::Tensor theirs = teacher_forced(before, request, one);
    const at::Tensor ours = teacher_forced(model, request, one);
    for (size_t t = 0; t < one.tokens.size(); ++t) {
      const bool first = none || one.versions[t] == 0;
      CHECK((first || one.versions[t] == 5));
      const at::Tensor own = first ? theirs : ours;
      CHECK(one.behavior_logprobs[t] == own[static_cast<int64_t>(t)].item<float>());
    }
  }
  CHECK(mixed >= 1);
  CHECK(whole_new >= 1);
  CHECK(whole_old + whole_new + mixed == 6);
  // The next call begins with the weights that are there.
  engine.set_refresh(nullptr);
  CHECK(generate_all(engine, requests)[0].versions.empty());
}

}  // namespace praetor
