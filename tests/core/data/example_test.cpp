#include "core/data/example.h"

#include <string>
#include <vector>

#include "core/base/error.h"
#include "tests/core/tokenizer/tiny_tokenizer.h"
#include "tests/support/catch.h"

namespace praetor {

namespace {

using Catch::Matchers::Contains;
using Ids = std::vector<int64_t>;
using Targets = std::vector<uint8_t>;

/// The tokens whose loss counts, as text.
std::string trained(const Example& example, const Tokenizer& tokenizer) {
  Ids ids;
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    if (example.target[i]) ids.push_back(example.tokens[i]);
  }
  return tokenizer.decode(ids, false);
}

Row conversation(std::vector<Message> messages) {
  Row row;
  row.messages = std::move(messages);
  row.line = 7;
  return row;
}

const std::vector<std::string> kChatml = {"<|im_start|>", "<|im_end|>", "<eos>"};  // 260, 261, 262

}  // namespace

TEST_CASE("prompt and completion are encoded apart and joined", "[core][cpu][data]") {
  const auto tokenizer = testing::load_tokenizer(testing::tiny_byte_level({"<eos>"}));
  Row row;
  row.prompt = "he";
  row.completion = "llo";
  const Example example = completion_example(row, *tokenizer, {}, 260);
  CHECK(example.tokens ==
        Ids{256, 257, 'o', 260});  // not "hello" 259, which generation could not continue
  CHECK(example.target == Targets{0, 1, 1, 1});
  TextFormat open;
  open.append_eos = false;
  CHECK(completion_example(row, *tokenizer, open, 260).tokens == Ids{256, 257, 'o'});
  CHECK(prompt_text(row, *tokenizer, {}) == "he");
  CHECK(prompt_tokens(row, *tokenizer, {}) == Ids{256});
}

TEST_CASE("nothing predicts the first token, so it is no target", "[core][cpu][data]") {
  const auto tokenizer = testing::load_tokenizer(testing::tiny_byte_level({"<eos>"}));
  Row row;
  row.completion = "hi";
  const Example example = completion_example(row, *tokenizer, {}, 260);
  CHECK(example.tokens == Ids{'h', 'i', 260});
  CHECK(example.target == Targets{0, 1, 1});
  row.completion = "";
  CHECK(completion_example(row, *tokenizer, {}, 260).target == Targets{0});
}

TEST_CASE("BOS opens a sequence once, and an EOS of the frame ends no prompt",
          "[core][cpu][data]") {
  nlohmann::json config = {{"tokenizer_class", "LlamaTokenizer"},
                           {"bos_token", "<s>"},
                           {"eos_token", "</s>"},
                           {"add_bos_token", true},
                           {"add_eos_token", true}};
  const auto llama = testing::load_tokenizer(testing::tiny_llama(), config);
  Row row;
  row.prompt = "a";
  row.completion = " a";
  CHECK(llama->encode("a") == Ids{1, 263, 2});
  CHECK(prompt_tokens(row, *llama, {}) == Ids{1, 263});
  row.prompt = "<s>a";
  CHECK(prompt_tokens(row, *llama, {}) == Ids{1, 263});
  row.prompt = "";
  CHECK(prompt_tokens(row, *llama, {}) == Ids{1});
  row.prompt = "a";
  // The dummy prefix is the space that the completion begins with; two would stand there otherwise.
  const Example example = completion_example(row, *llama, {}, 2);
  CHECK(example.tokens == Ids{1, 263, 263, 2});
  CHECK(llama->decode(example.tokens) == "a a");

  config["add_eos_token"] = false;
  config["bos_token"] = "</s>";  // one token for both roles, as GPT-2 has it
  CHECK(prompt_tokens(row, *testing::load_tokenizer(testing::tiny_llama(), config), {}) ==
        Ids{2, 263});
}

TEST_CASE("a plain prompt can be wrapped as a turn of a template", "[core][cpu][data]") {
  const auto tokenizer = testing::load_tokenizer(testing::tiny_byte_level(kChatml));
  Row row;
  row.prompt = "Q";
  row.completion = "A";
  TextFormat format;
  format.chat_template = "chatml";
  CHECK(prompt_text(row, *tokenizer, format) == "Q");
  format.wrap_prompt = true;
  CHECK(prompt_text(row, *tokenizer, format) ==
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n");
  const Example own = completion_example(row, *tokenizer, format, 261);
  CHECK(trained(own, *tokenizer) ==
        "A<|im_end|>");  // the template's marker is the stop token: once
  const Example other = completion_example(row, *tokenizer, format, 262);
  CHECK(trained(other, *tokenizer) == "A<|im_end|><eos>");
  CHECK(other.tokens.size() == other.target.size());
}

TEST_CASE("every turn of the assistant is a target, the rest is context", "[core][cpu][data]") {
  const auto tokenizer = testing::load_tokenizer(testing::tiny_byte_level(kChatml));
  const Row row = conversation(
      {{"system", "s"}, {"user", "u1"}, {"assistant", "a1"}, {"user", "u2"}, {"assistant", "a2"}});
  TextFormat format;
  format.chat_template = "chatml";
  const Example example = completion_example(row, *tokenizer, format, 261);
  CHECK(trained(example, *tokenizer) == "a1<|im_end|>a2<|im_end|>");
  const std::string whole = render_chat(*tokenizer, "chatml", row.messages, false);
  CHECK(tokenizer->decode(example.tokens, false) + "\n" ==
        whole);  // what follows the last turn is not generated
  CHECK(prompt_text(row, *tokenizer, format) ==
        render_chat(*tokenizer,
                    "chatml",
                    std::vector<Message>(row.messages.begin(), row.messages.end() - 1),
                    true));
  CHECK(prompt_text(conversation({{"user", "u"}}), *tokenizer, format) ==
        render_chat(*tokenizer, "chatml", std::vector<Message>{{"user", "u"}}, true));

  format.chat_template = "plain";
  const Example plain = completion_example(row, *tokenizer, format, 262);
  CHECK(tokenizer->decode(plain.tokens, false) == "s\nu1\na1\nu2\na2<eos>");
  CHECK(trained(plain, *tokenizer) == "a1a2<eos>");

  CHECK_THROWS_AS(completion_example(conversation({{"user", "u"}}), *tokenizer, format, 262),
                  DataError);
  CHECK_THROWS_WITH(completion_example(conversation({{"user", "u"}}), *tokenizer, format, 262),
                    Contains("line 7: no message of the assistant"));
  format.chat_template = "nope";
  CHECK_THROWS_AS(completion_example(row, *tokenizer, format, 262), InvalidArgument);
}

TEST_CASE("a preference pair shares its prompt and margin", "[core][cpu][data]") {
  const auto tokenizer = testing::load_tokenizer(testing::tiny_byte_level(kChatml));
  Row row;
  row.prompt = "Q";
  row.chosen = "good";
  row.rejected = "bad";
  row.margin = 0.5;
  const auto pair = preference_examples(row, *tokenizer, {}, 262);
  REQUIRE(pair.size() == 2);
  CHECK(tokenizer->decode(pair[0].tokens, false) == "Qgood<eos>");
  CHECK(tokenizer->decode(pair[1].tokens, false) == "Qbad<eos>");
  CHECK(trained(pair[0], *tokenizer) == "good<eos>");
  CHECK(trained(pair[1], *tokenizer) == "bad<eos>");
  CHECK(pair[0].margin == 0.5);
  CHECK(pair[1].margin == 0.5);

  row.prompt.clear();
  row.messages = {{"user", "Q"}};
  TextFormat format;
  format.chat_template = "chatml";
  const auto chat = preference_examples(row, *tokenizer, format, 261);
  CHECK(tokenizer->decode(chat[1].tokens, false) ==
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nbad<|im_end|>");
}

}  // namespace praetor
