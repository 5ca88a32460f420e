#include "rollout/session.h"

#include <ATen/core/Tensor.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/random.h"
#include "tests/rollout/engine_fixture.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

using testing::generate_all;
using testing::LetterTokenizer;
using testing::same_response;
using testing::tiny_model;

constexpr int64_t kVocabulary = 97;

/// The tokens of `part` begin those of `whole`, with the same numbers beside them.
bool begins(const Generation& whole, const Generation& part) {
  const auto prefix = [](const auto& a, const auto& b) {
    return b.size() <= a.size() && std::equal(b.begin(), b.end(), a.begin());
  };
  return prefix(whole.tokens, part.tokens) && prefix(whole.model_logprobs, part.model_logprobs) &&
         prefix(whole.behavior_logprobs, part.behavior_logprobs);
}

struct Heard {
  std::vector<Generation> ended;
  std::map<int32_t, std::string> text;  // by sample, piece by piece
  std::map<int32_t, size_t> tokens;
};

Listener listener_of(Heard& heard, bool streamed = true) {
  Listener listener;
  if (streamed) {
    listener.on_token = [&heard](const Generation& so_far, std::string_view text) {
      heard.text[so_far.sample] += text;
      ++heard.tokens[so_far.sample];
      CHECK(so_far.tokens.size() == heard.tokens[so_far.sample]);
    };
  }
  listener.on_finish = [&heard](Generation&& g) { heard.ended.push_back(std::move(g)); };
  return listener;
}

int64_t resident_bytes() {
  int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

}  // namespace

TEST_CASE("requests that come and go give what each gives alone", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(kVocabulary);
  Engine alone(model, tokenizer, {.max_sequences = 1, .max_step_tokens = 1000});
  int64_t adopted = 0;
  int64_t preempted = 0;
  int64_t cancelled = 0;
  int64_t drafted = 0;
  int64_t accepted = 0;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    INFO("seed " << seed);
    RandomStream random({.job_seed = seed});
    const auto slots = 1 + static_cast<int64_t>(random.below(6));
    // 4,096 bytes hold 16 tokens; the longest sequence has 50.
    Engine engine(model,
                  tokenizer,
                  {.max_sequences = slots,
                   .max_step_tokens = slots + static_cast<int64_t>(random.below(40)),
                   .block_size = 4,
                   .cache_bytes = 1024 * (14 + static_cast<int64_t>(random.below(40))),
                   .draft_tokens = static_cast<int64_t>(random.below(3) * 4)});
    Session session(engine);
    std::vector<GenerationRequest> requests;
    std::vector<Heard> heard(24);
    uint64_t steps = 0;
    while (true) {
      if (requests.size() < heard.size() && random.below(2) == 0) {
        const auto number = static_cast<uint32_t>(requests.size());
        requests.push_back(testing::random_request(random, number, kVocabulary));
        const int64_t id =
            session.submit(requests.back(), listener_of(heard[number], number % 2 == 0));
        REQUIRE(id == number);
      }
      if (!requests.empty() && random.below(8) == 0) {
        session.cancel(static_cast<int64_t>(random.below(requests.size())));
      }
      const bool worked = session.step();
      if (!worked && requests.size() == heard.size()) break;
      REQUIRE(++steps < 10000);
    }
    CHECK(session.open() == 0);
    CHECK(session.used_blocks() == 0);
    adopted += session.stats().adopted_rows;
    preempted += session.stats().preemptions;
    accepted += session.stats().accepted;
    drafted += session.stats().drafted;
    for (size_t i = 0; i < heard.size(); ++i) {
      INFO("request " << i);
      const auto whole = generate_all(alone, {requests[i]});
      std::sort(heard[i].ended.begin(), heard[i].ended.end(), [](const auto& a, const auto& b) {
        return a.sample < b.sample;
      });
      REQUIRE(heard[i].ended.size() == whole.size());
      for (size_t k = 0; k < whole.size(); ++k) {
        const Generation& made = heard[i].ended[k];
        const std::string& streamed = heard[i].text[made.sample];
        CHECK(made.text.starts_with(streamed));
        if (made.finish == FinishReason::kCancelled) {
          ++cancelled;
          CHECK(begins(whole[k], made));
        } else {
          CHECK(same_response(made, whole[k]));
        }
      }
    }
  }
  CHECK(adopted > 1000);
  CHECK(preempted > 20);
  CHECK(cancelled > 50);
  CHECK(accepted > 50);
  CHECK(drafted > accepted);
}

TEST_CASE("text is streamed as soon as no stop string can cut it", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(kVocabulary);
  Engine engine(model, tokenizer);
  GenerationRequest request{.prompt = {5, 6, 7}, .params = {.max_new_tokens = 40}};
  const Generation free = generate_all(engine, {request})[0];
  // A stop string of the text's middle: the letters before it arrive, none of its own.
  const std::string stop = free.text.substr(20, 3);
  request.params.stop_strings = {stop};
  Session session(engine);
  std::string streamed;
  std::vector<Generation> ended;
  size_t pieces = 0;
  session.submit(request,
                 {.on_token =
                      [&](const Generation&, std::string_view text) {
                        streamed += text;
                        pieces += text.empty() ? 0 : 1;
                      },
                  .on_finish = [&](Generation&& g) { ended.push_back(std::move(g)); }});
  while (session.step()) {
  }
  REQUIRE(ended.size() == 1);
  CHECK(ended[0].text == free.text.substr(0, free.text.find(stop)));
  CHECK(streamed == ended[0].text);
  CHECK(pieces > 10);
}

TEST_CASE("a request ends at its deadline with what it has", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(kVocabulary);
  Engine engine(model, tokenizer);
  Session session(engine);
  const GenerationRequest request{
      .prompt = {5, 6, 7}, .params = {.max_new_tokens = 60}, .samples = 2};
  Heard in_time;
  Heard late;
  Heard never;
  const auto now = Session::Clock::now();
  session.submit(request, listener_of(in_time), now + std::chrono::hours(1));
  session.submit(request, listener_of(never), now);
  const int64_t id = session.submit(request, listener_of(late));
  REQUIRE(session.step());
  REQUIRE(session.step());
  session.cancel(id);
  session.cancel(id);
  session.cancel(1000);
  while (session.step()) {
  }
  REQUIRE(never.ended.size() == 2);
  REQUIRE(late.ended.size() == 2);
  REQUIRE(in_time.ended.size() == 2);
  for (int k = 0; k < 2; ++k) {
    CHECK(never.ended[k].finish == FinishReason::kCancelled);
    CHECK(never.ended[k].tokens.empty());
    CHECK(late.ended[k].finish == FinishReason::kCancelled);
    CHECK(late.ended[k].tokens.size() == 2);
    CHECK(late.ended[k].text == tokenizer.decode(late.ended[k].tokens, true));
    CHECK(in_time.ended[k].finish == FinishReason::kLength);
  }
  CHECK(session.open() == 0);
}

TEST_CASE("a conversation's next turn computes its new part alone", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(kVocabulary);
  Engine engine(model, tokenizer, {.block_size = 4});
  Session session(engine);
  GenerationRequest request{.prompt = std::vector<int64_t>(21, 9),
                            .params = {.max_new_tokens = 12}};
  Heard first;
  session.submit(request, listener_of(first));
  while (session.step()) {
  }
  const int64_t before = session.stats().prefill_rows;
  for (const int64_t token : first.ended.at(0).tokens) request.prompt.push_back(token);
  for (const int64_t token : {4, 5, 6}) request.prompt.push_back(token);
  Heard second;
  session.submit(request, listener_of(second));
  while (session.step()) {
  }
  // 36 tokens; the last of the first response never went through the model, so 32 are known.
  CHECK(session.stats().prefill_rows - before == 4);
  Engine other(model, tokenizer);
  CHECK(same_response(second.ended.at(0), generate_all(other, {request})[0]));
}

TEST_CASE("new weights are used from the next token on, and each token names its own",
          "[rollout][cpu]") {
  Transformer model = tiny_model();
  const Transformer before = tiny_model();
  const LetterTokenizer tokenizer(kVocabulary);
  const GenerationRequest request{.prompt = std::vector<int64_t>(9, 9),
                                  .params = {.max_new_tokens = 12}};
  Engine old_engine(before, tokenizer, {.block_size = 4});
  const Generation old = generate_all(old_engine, {request})[0];
  Engine engine(model, tokenizer, {.block_size = 4});
  Session session(engine);
  Heard heard;
  session.submit(request, listener_of(heard));
  for (int i = 0; i < 5; ++i) session.step();
  for (const NamedTensor& p : model.parameters()) at::Tensor(p.tensor).mul_(1.5);
  session.weights_replaced(3, /*recompute=*/true);
  while (session.step()) {
  }
  const Generation made = heard.ended.at(0);
  CHECK(made.versions == std::vector<int64_t>{0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 3, 3});
  CHECK(std::equal(made.tokens.begin(), made.tokens.begin() + 5, old.tokens.begin()));
  // Recomputed, the rest is what the new weights say to the same beginning.
  Heard again;
  Heard once_more;
  GenerationRequest rest = request;
  rest.prompt.insert(rest.prompt.end(), made.tokens.begin(), made.tokens.begin() + 5);
  rest.params.temperature = 0;
  session.submit(rest, listener_of(again));
  session.submit(rest, listener_of(once_more));
  while (session.step()) {
  }
  Engine new_engine(model, tokenizer, {.max_sequences = 1});
  CHECK_THROWS_WITH(generate_all(engine, {rest}), Catch::Matchers::Contains("in use"));
  CHECK(again.ended.at(0).versions.front() == 3);
  const Generation fresh = generate_all(new_engine, {rest})[0];
  CHECK(again.ended.at(0).tokens == fresh.tokens);
  CHECK(once_more.ended.at(0).tokens == fresh.tokens);
}

TEST_CASE("right guesses save steps and change nothing", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(kVocabulary);
  std::vector<GenerationRequest> requests;
  for (const double temperature : {0.0, 0.3, 1.0}) {
    for (int64_t first = 0; first < 6; ++first) {
      requests.push_back({.prompt = {first, 5, 6, 5, 6, 5, 6, 5},
                          .params = {.max_new_tokens = 60,
                                     .temperature = temperature,
                                     .repetition_penalty = first == 5 ? 1.2 : 1.0},
                          .key = {.prompt_ordinal = static_cast<uint64_t>(first)},
                          .samples = 2});
    }
  }
  Engine plain(model, tokenizer);
  Engine guessing(model, tokenizer, {.block_size = 4, .draft_tokens = 8});
  const auto expected = generate_all(plain, requests);
  const auto made = generate_all(guessing, requests);
  for (size_t i = 0; i < expected.size(); ++i) CHECK(same_response(made[i], expected[i]));
  CHECK(guessing.stats().accepted > 10);
  CHECK(guessing.stats().tokens == plain.stats().tokens);
  // One greedy sequence that goes round in circles.
  const std::vector<GenerationRequest> one = {requests[0]};
  generate_all(plain, one);
  generate_all(guessing, one);
  CHECK(guessing.stats().steps < plain.stats().steps);
}

TEST_CASE("ten thousand requests leave no block, no job and no memory behind", "[rollout][cpu]") {
  const Transformer model = tiny_model();
  const LetterTokenizer tokenizer(kVocabulary);
  Engine engine(model, tokenizer, {.max_sequences = 64, .block_size = 4, .cache_bytes = 1 << 20});
  Session session(engine);
  int64_t ended = 0;
  RandomStream random({.job_seed = 77});
  int64_t settled = 0;
  for (int i = 0; i < 10000; ++i) {
    if (i == 3000) settled = resident_bytes();
    GenerationRequest r{.prompt = {static_cast<int64_t>(random.below(kVocabulary)), 3, 4, 5, 6},
                        .params = {.max_new_tokens = 1 + static_cast<int64_t>(random.below(3))}};
    session.submit(std::move(r), {.on_finish = [&](Generation&&) { ++ended; }});
    if (session.open() < 64) continue;
    while (session.open() > 32) session.step();
  }
  while (session.step()) {
  }
  CHECK(ended == 10000);
  CHECK(session.open() == 0);
  CHECK(session.used_blocks() == 0);
#ifndef __SANITIZE_ADDRESS__  // which keeps what is freed
  CHECK(resident_bytes() - settled < 2 << 20);
#endif
}

}  // namespace praetor
