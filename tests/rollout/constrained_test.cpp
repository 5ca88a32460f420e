#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "rollout/sampling_config.h"
#include "tests/rollout/engine_fixture.h"
#include "tests/rollout/grammar/naive_matcher.h"
#include "tests/rollout/grammar/piece_tokenizer.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

// Responses of the whole engine under constraints.

namespace praetor {
namespace {

using testing::generate_all;
using testing::NaiveMatcher;
using testing::tiny_model;

GenerationRequest request_of(ProcessorSpec constraint, uint64_t ordinal) {
  GenerationRequest r{.prompt = {5, 6, 7}, .key = {.job_seed = 8, .prompt_ordinal = ordinal}};
  r.params.max_new_tokens = 60;
  r.params.temperature = ordinal % 3 == 0 ? 0.7 : 1.5;
  r.params.stop_tokens = {0};
  r.params.processors = {std::move(constraint)};
  r.samples = 12;
  return r;
}

}  // namespace

TEST_CASE("every response that ends by itself matches its pattern", "[rollout][cpu]") {
  const std::vector<std::string> patterns = {"(yes|no|maybe)",
                                             "[a-c]{3,9}",
                                             "\\d{4}-\\d{2}-\\d{2}",
                                             "(ab|abc|\\{\")+!?",
                                             "é{2}a?",
                                             "-?(0|[1-9]\\d*)(\\.\\d+)?",
                                             "[^a-z]{1,5}",
                                             "(true|false)(, (true|false)){2,5}",
                                             "€?x"};
  const auto tokenizer = testing::json_pieces();
  const Transformer model = tiny_model();
  REQUIRE(tokenizer.vocab_size() == model.config().vocab_size);
  std::vector<GenerationRequest> requests;
  for (const std::string& pattern : patterns)
    requests.push_back(request_of(regex_constraint(pattern), requests.size()));
  Engine engine(model, tokenizer);
  int stopped = 0;
  int without_stop_token = 0;
  for (const Generation& made : generate_all(engine, requests)) {
    CAPTURE(patterns[static_cast<size_t>(made.request)], made.text);
    CHECK(made.sampled_logprobs.size() == made.tokens.size());
    if (made.finish != FinishReason::kStop) continue;
    CHECK(NaiveMatcher::matches(patterns[static_cast<size_t>(made.request)], made.text));
    ++stopped;
    without_stop_token += made.tokens.back() != 0 ? 1 : 0;
  }
  CHECK(stopped > 90);
  CHECK(without_stop_token > 20);
}

TEST_CASE("a constrained response ends where nothing can follow, without any stop token",
          "[rollout][cpu]") {
  const auto tokenizer = testing::json_pieces();
  const Transformer model = tiny_model();
  Engine engine(model, tokenizer);
  auto request = request_of(regex_constraint("[a-c]{3}"), 0);
  request.params.stop_tokens = {};
  for (const Generation& made : generate_all(engine, {request})) {
    CHECK(made.finish == FinishReason::kStop);
    CHECK(made.text.size() == 3);
  }
  request.params.temperature = 0;
  for (const Generation& made : generate_all(engine, {request})) {
    CHECK(made.finish == FinishReason::kStop);
    CHECK(made.text.size() == 3);
    CHECK(made.sampled_logprobs.empty());
  }
}

TEST_CASE("every response that ends by itself under a schema is JSON of its shape",
          "[rollout][cpu]") {
  const auto tokenizer = testing::json_pieces();
  const Transformer model = tiny_model();
  const auto schema = json_schema_constraint(
      R"({"type":"object","properties":{"ok":{"type":"boolean"},)"
      R"("tag":{"type":"string","maxLength":5},"n":{"type":"array","items":{"type":"integer"},)"
      R"("maxItems":2}},"required":["ok","tag"]})");
  Engine engine(model, tokenizer);
  int stopped = 0;
  auto request = request_of(schema, 1);
  request.samples = 60;
  for (const Generation& made : generate_all(engine, {request})) {
    if (made.finish != FinishReason::kStop) continue;
    CAPTURE(made.text);
    const auto value = nlohmann::json::parse(made.text, nullptr, false);
    REQUIRE(value.is_object());
    CHECK(value.at("ok").is_boolean());
    CHECK(value.at("tag").is_string());
    for (const auto& [key, member] : value.items())
      CHECK((key == "ok" || key == "tag" || (key == "n" && member.size() <= 2)));
    ++stopped;
  }
  CHECK(stopped > 30);
}

TEST_CASE("a story model of SentencePiece tokens writes what a pattern wants", "[rollout][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const auto folder = shared / "data" / "stories260K";
  const Transformer model = Transformer::load(folder);
  const auto tokenizer = Tokenizer::load(folder);
  const std::vector<std::string> patterns = {"Once upon a time[a-z ]{5,20}\\.",
                                             " ?[A-Z][a-z]+( [a-z]+){2}!",
                                             "(é|日本)+\n",
                                             "\\{\"[a-z]+\": \\d\\}"};
  std::vector<GenerationRequest> requests;
  for (const std::string& pattern : patterns) {
    auto r = request_of(regex_constraint(pattern), requests.size());
    r.prompt = {1};
    r.params.stop_tokens = model.config().eos_tokens;
    requests.push_back(std::move(r));
  }
  Engine engine(model, *tokenizer);
  int stopped = 0;
  for (const Generation& made : generate_all(engine, requests)) {
    CAPTURE(patterns[static_cast<size_t>(made.request)], made.text);
    if (made.finish != FinishReason::kStop) continue;
    CHECK(NaiveMatcher::matches(patterns[static_cast<size_t>(made.request)], made.text));
    ++stopped;
  }
  CHECK(stopped > 30);
}

TEST_CASE("requests whose processors leave nothing, or do not fit, are named", "[rollout][cpu]") {
  const auto tokenizer = testing::json_pieces();
  const Transformer model = tiny_model();
  Engine engine(model, tokenizer);
  auto good = request_of(regex_constraint("a"), 0);
  auto barred = good;
  barred.params.processors = {allowed_tokens({1}), bad_words("[[1]]")};
  CHECK_THROWS_WITH(generate_all(engine, {good, barred}),
                    "request 1: the sampling processor bad_words has barred every token that was "
                    "left");
  auto wrong = good;
  wrong.params.processors = {allowed_tokens({97})};
  CHECK_THROWS_WITH(generate_all(engine, {good, wrong}),
                    "request 1: processors[0]: allowed_tokens: ids: token 97 is outside the "
                    "vocabulary of 97");
}

TEST_CASE("top log-probabilities stand beside every token", "[rollout][cpu]") {
  const auto tokenizer = testing::json_pieces();
  const Transformer model = tiny_model();
  Engine engine(model, tokenizer);
  GenerationRequest request{.prompt = {5, 6}, .key = {.job_seed = 9}};
  request.params.max_new_tokens = 12;
  request.params.temperature = 0;
  request.params.top_logprobs = 3;
  const Generation made = generate_all(engine, {request})[0];
  REQUIRE(made.top_logprobs.size() == 3 * made.tokens.size());
  for (size_t i = 0; i < made.tokens.size(); ++i) {
    CHECK(made.top_logprobs[3 * i].token == made.tokens[i]);  // greedy
    CHECK(made.top_logprobs[3 * i].logprob == made.model_logprobs[i]);
    CHECK(made.top_logprobs[3 * i + 1].logprob >= made.top_logprobs[3 * i + 2].logprob);
  }
}

}  // namespace praetor
