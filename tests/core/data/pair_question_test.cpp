#include "core/data/pair_question.h"

#include <string>
#include <vector>

#include "core/base/error.h"
#include "tests/core/tokenizer/tiny_tokenizer.h"
#include "tests/support/catch.h"

namespace praetor {

namespace {

using Targets = std::vector<uint8_t>;

PairQuestion question_from(const std::string& yaml) {
  const auto document = YamlDocument::parse(yaml, "q.yaml");
  YamlReader in = document->root();
  PairQuestion out = PairQuestion::from_yaml(in);
  document->throw_if_errors();
  return out;
}

Row pair(const std::string& prompt, const std::string& chosen, const std::string& rejected) {
  Row row;
  row.prompt = prompt;
  row.chosen = chosen;
  row.rejected = rejected;
  return row;
}

std::string seen(const Example& example, const Tokenizer& tokenizer) {
  return tokenizer.decode(example.tokens, false);
}

}  // namespace

TEST_CASE("a pair is asked about in both orders, and only the answer is a target",
          "[core][cpu][data]") {
  const auto tokenizer = testing::load_tokenizer(testing::tiny_byte_level({"<eos>"}));
  const PairQuestion question = question_from("{text: '{prompt}|{a}|{b}=', answers: [X, Y]}");
  const auto answers = answer_tokens(question.answers, *tokenizer);
  CHECK(answers == std::array<int64_t, 2>{'X', 'Y'});
  const auto examples =
      pair_question_examples(pair("p", "w", "l"), question, answers, *tokenizer, {});
  REQUIRE(examples.size() == 2);
  CHECK(seen(examples[0], *tokenizer) == "p|w|l=X");
  CHECK(seen(examples[1], *tokenizer) == "p|l|w=Y");
  for (const Example& example : examples) CHECK(example.target == Targets{0, 0, 0, 0, 0, 0, 1});
}

TEST_CASE("the question is what a template wraps, not the prompt within it", "[core][cpu][data]") {
  const auto tokenizer =
      testing::load_tokenizer(testing::tiny_byte_level({"<|im_start|>", "<|im_end|>", "<eos>"}));
  const PairQuestion question = question_from("{text: '{prompt}|{a}|{b}'}");
  TextFormat chat;
  chat.chat_template = "chatml";
  chat.wrap_prompt = true;
  const auto examples =
      pair_question_examples(pair("p", "w", "l"), question, {'A', 'B'}, *tokenizer, chat);
  CHECK(seen(examples[0], *tokenizer) ==
        "<|im_start|>user\np|w|l<|im_end|>\n<|im_start|>assistant\nA");
  // A conversation before the responses is rendered where the prompt stands.
  Row row = pair("", "w", "l");
  row.messages = {{"user", "hi"}};
  chat.wrap_prompt = false;
  const auto talk = pair_question_examples(row, question, {'A', 'B'}, *tokenizer, chat);
  CHECK(seen(talk[1], *tokenizer) ==
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n|l|wB");
}

TEST_CASE("the default question holds all three texts", "[core][cpu][data]") {
  const PairQuestion question = question_from("{other: 1}");
  CHECK(question.fill("P", "{b}", "2") == "[CONTEXT] P [RESPONSE A] {b} [RESPONSE B] 2 [ANSWER]");
  CHECK(question.answers == std::array<std::string, 2>{"A", "B"});
}

TEST_CASE("answers that are no single token, or the same one, are refused", "[core][cpu][data]") {
  const auto tokenizer = testing::load_tokenizer(testing::tiny_byte_level());
  CHECK(answer_tokens({"he", "ll"}, *tokenizer) == std::array<int64_t, 2>{256, 257});
  CHECK_THROWS_WITH(answer_tokens({"No", "B"}, *tokenizer),
                    Catch::Contains("the answer \"No\" is 2 tokens (\"N\", \"o\")"));
  CHECK_THROWS_AS(answer_tokens({"A", "A"}, *tokenizer), DataError);
}

TEST_CASE("a question about one reply, or with one answer, is an error", "[core][cpu][data]") {
  CHECK_THROWS_WITH(question_from("{text: '{prompt} {a}'}"),
                    Catch::Contains("text: holds one of the two replies only"));
  CHECK_THROWS_WITH(question_from("{text: '{a} {b} {c}'}"), Catch::Contains("there is no {c}"));
  CHECK_THROWS_WITH(question_from("{answers: [A, A]}"),
                    Catch::Contains("answers: two different words are wanted"));
}

}  // namespace praetor
