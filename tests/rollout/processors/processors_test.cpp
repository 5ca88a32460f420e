#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "rollout/processors/chain.h"
#include "rollout/processors/registry.h"
#include "rollout/sampling_config.h"
#include "tests/rollout/grammar/piece_tokenizer.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

constexpr float kBarred = -std::numeric_limits<float>::infinity();

const testing::PieceTokenizer& tokenizer() {
  static const testing::PieceTokenizer kPieces({"a", "b", "c", " a", "ab", " "});
  return kPieces;
}

std::unique_ptr<ProcessorChain> chain_of(const SamplingParams& params) {
  ProcessorCache cache(tokenizer(), tokenizer().vocab_size());
  cache.check(params, "request 3");
  return cache.start(params, 3);
}

/// The logits 0, 1, ..., 6 behind the tokens given.
std::vector<float> processed(const SamplingParams& params, const std::vector<int64_t>& tokens) {
  const auto chain = chain_of(params);
  for (const int64_t token : tokens) chain->push(token);
  std::vector<float> z = {0, 1, 2, 3, 4, 5, 6};
  chain->apply(z);
  return z;
}

std::string refusal(const ProcessorSpec& spec) {
  SamplingParams params;
  params.processors = {spec};
  try {
    chain_of(params);
  } catch (const InvalidArgument& failure) {
    return failure.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("only allowed tokens are left", "[rollout][cpu]") {
  SamplingParams params;
  params.processors = {allowed_tokens({2, 5, 2})};
  CHECK(processed(params, {}) ==
        std::vector<float>{kBarred, kBarred, 2, kBarred, kBarred, 5, kBarred});
}

TEST_CASE("a bias is added to the logit before the temperature divides it", "[rollout][cpu]") {
  SamplingParams params;
  params.processors = {logit_bias(R"({"1":-3,"6":0.5})")};
  CHECK(processed(params, {}) == std::vector<float>{0, -2, 2, 3, 4, 5, 6.5});
  params.temperature = 0.5;
  CHECK(processed(params, {}) == std::vector<float>{0, -5, 2, 3, 4, 5, 7});
  params.temperature = 0;
  CHECK(processed(params, {}) == std::vector<float>{0, -2, 2, 3, 4, 5, 6.5});
}

TEST_CASE("penalties count the response's tokens", "[rollout][cpu]") {
  // Token 2 three times, token 4 once: z - 0.25 * count, z - 0.5 when it is there.
  SamplingParams params;
  params.processors = {frequency_penalty(0.25)};
  CHECK(processed(params, {2, 4, 2, 2}) == std::vector<float>{0, 1, 1.25, 3, 3.75, 5, 6});
  params.processors = {presence_penalty(0.5)};
  CHECK(processed(params, {2, 4, 2, 2}) == std::vector<float>{0, 1, 1.5, 3, 3.5, 5, 6});
  params.processors = {presence_penalty(0.5), frequency_penalty(-0.25)};
  params.temperature = 2;
  CHECK(processed(params, {2, 4, 2, 2}) == std::vector<float>{0, 1, 2.125, 3, 3.875, 5, 6});
}

TEST_CASE("stop tokens are barred until there are enough tokens", "[rollout][cpu]") {
  SamplingParams params;
  params.stop_tokens = {0, 3, 99};
  params.processors = {min_new_tokens(2)};
  const std::vector<float> before = {kBarred, 1, 2, kBarred, 4, 5, 6};
  CHECK(processed(params, {}) == before);
  CHECK(processed(params, {1}) == before);
  CHECK(processed(params, {1, 1}) == std::vector<float>{0, 1, 2, 3, 4, 5, 6});
  params.ignore_eos = true;
  CHECK(processed(params, {}) == std::vector<float>{0, 1, 2, 3, 4, 5, 6});
}

TEST_CASE("a bad word is barred at its last token", "[rollout][cpu]") {
  SamplingParams params;
  params.processors = {bad_words("[[1,2,3],[5],[2,2]]")};
  CHECK(processed(params, {}) == std::vector<float>{0, 1, 2, 3, 4, kBarred, 6});
  CHECK(processed(params, {1, 2}) == std::vector<float>{0, 1, kBarred, kBarred, 4, kBarred, 6});
  CHECK(processed(params, {2, 1}) == std::vector<float>{0, 1, 2, 3, 4, kBarred, 6});
  CHECK(processed(params, {3, 4, 1, 2})[3] == kBarred);
  CHECK(processed(params, {1, 2, 4})[3] == 3);
  // "a" is token 1, " a" token 4; "ac" is 1 3, " ac" is 4 3.
  params.processors = {bad_words(R"(["a"])")};
  CHECK(processed(params, {}) == std::vector<float>{0, kBarred, 2, 3, kBarred, 5, 6});
  params.processors = {bad_words(R"(["ac"])")};
  CHECK(processed(params, {}) == std::vector<float>{0, 1, 2, 3, 4, 5, 6});
  CHECK(processed(params, {1})[3] == kBarred);
  CHECK(processed(params, {4})[3] == kBarred);
  CHECK(processed(params, {2})[3] == 3);
}

TEST_CASE("a constraint bars, and says when the response is complete", "[rollout][cpu]") {
  SamplingParams params;
  params.stop_tokens = {0};
  params.processors = {regex_constraint("(ab)?c?")};
  const auto chain = chain_of(params);
  std::vector<float> z(7, 1.0F);
  chain->apply(z);
  CHECK(z == std::vector<float>{1, 1, kBarred, 1, kBarred, 1, kBarred});
  chain->push(1);
  CHECK_FALSE(chain->complete());
  z.assign(7, 1.0F);
  chain->apply(z);
  CHECK(z == std::vector<float>{kBarred, kBarred, 1, kBarred, kBarred, kBarred, kBarred});
  chain->push(2);
  CHECK_FALSE(chain->complete());
  z.assign(7, 1.0F);
  chain->apply(z);
  CHECK(z == std::vector<float>{1, kBarred, kBarred, 1, kBarred, kBarred, kBarred});
  chain->push(3);
  CHECK(chain->complete());
}

TEST_CASE("processors that leave no token are named", "[rollout][cpu]") {
  SamplingParams params;
  params.processors = {allowed_tokens({1}), bad_words("[[1]]")};
  const auto chain = chain_of(params);
  std::vector<float> z(7, 1.0F);
  CHECK_THROWS_AS(chain->apply(z), DataError);
  CHECK_THROWS_WITH(chain_of(params)->apply(z),
                    "request 3: the sampling processor allowed_tokens has barred every token that "
                    "was left");
  z.assign(7, 1.0F);
  CHECK_THROWS_WITH(
      chain_of(params)->apply(z),
      "request 3: the sampling processor bad_words has barred every token that was left");
}

TEST_CASE("options that do not fit are refused by request, processor and key", "[rollout][cpu]") {
  const std::string head = "request 3: processors[0]: ";
  CHECK(refusal(regex_constraint("a(")) ==
        head + "regex: pattern: offset 1: the group does not end");
  CHECK(refusal(regex_constraint("x")) ==
        head + "regex: pattern: the vocabulary spells no text that matches");
  CHECK(refusal(json_schema_constraint(R"({"type":"any"})"))
            .starts_with(head + "json_schema: schema: #/type: \"any\" is no type"));
  CHECK(refusal(allowed_tokens({7})) ==
        head + "allowed_tokens: ids: token 7 is outside the vocabulary of 7");
  CHECK(refusal(logit_bias(R"({"9":1})")) ==
        head + "logit_bias: bias: token 9 is outside the vocabulary of 7");
  CHECK(refusal(logit_bias(R"({"x":1})")) == head + "logit_bias: bias: \"x\" is no token id");
  CHECK(refusal(logit_bias(R"({"1":101})")) ==
        head + "logit_bias: bias[1]: 101 is outside [-100, 100]");
  CHECK(refusal(presence_penalty(3)) == head + "presence_penalty: penalty: 3.0 is outside [-2, 2]");
  CHECK(refusal(min_new_tokens(0)) == head + "min_new_tokens: tokens: 0 is outside >= 1");
  CHECK(refusal(bad_words("[]")).starts_with(head + "bad_words: words: a list of texts"));
  CHECK(refusal(bad_words(R"(["a",[]])")).starts_with(head + "bad_words: words[1]: a list"));
  CHECK(refusal(bad_words(R"([""])")) ==
        head + "bad_words: words[0]: an empty text would bar everything");
  CHECK(refusal({"regex", R"({"patern":"a"})"}) == head + "regex: pattern: is missing");
  CHECK(refusal({"regex", R"({"pattern":"a","x":1})"}) ==
        head + "regex: x: is not known here; known: pattern");
  CHECK(refusal({"regex", R"({"pattern":5})"}) == head + "regex: pattern: 5 is no text");
  CHECK(refusal({"regex", "[1]"}) == head + "regex: the options are no JSON object: [1]");
  CHECK(refusal({"min_new_tokens", R"({"tokens":1.5})"}) ==
        head + "min_new_tokens: tokens: 1.5 is no whole number");
  CHECK(
      refusal({"guess", "{}"}).starts_with(head + "guess: no processor is of this kind; known: "));
}

TEST_CASE("an engine reads and binds a set of options once, and forgets the oldest",
          "[rollout][cpu]") {
  ProcessorCache cache(tokenizer(), tokenizer().vocab_size());
  SamplingParams params;
  for (int i = 0; i < 200; ++i) {
    params.processors = {regex_constraint("a{" + std::to_string(1 + i % 100) + "}")};
    cache.check(params, "request 0");
    const auto chain = cache.start(params, 0);
    std::vector<float> z(7, 1.0F);
    chain->apply(z);
    CHECK(z[1] == 1.0F);
    CHECK(z[2] == kBarred);
  }
  CHECK(cache.start({}, 0) == nullptr);
}

}  // namespace praetor
