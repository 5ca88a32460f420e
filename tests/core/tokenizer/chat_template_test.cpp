#include "core/tokenizer/chat_template.h"

#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/core/tokenizer/tiny_tokenizer.h"
#include "tests/support/catch.h"

namespace praetor {

namespace {

using Catch::Matchers::Contains;

const std::vector<Message> kTalk = {
    {"system", "Be kind."}, {"user", " Hi \n"}, {"assistant", "Hello!"}};

}  // namespace

TEST_CASE("each template renders a conversation as published", "[core][cpu][tokenizer]") {
  CHECK(render_chat("plain", kTalk, false) == "Be kind.\n Hi \n\nHello!");
  CHECK(render_chat("chatml", kTalk, false) ==
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n");
  CHECK(render_chat("llama3", kTalk, false) ==
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>");
  CHECK(render_chat("llama3", std::vector<Message>{{"user", "\u3000 \x1f"}}, false) ==
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|eot_id|>");
  CHECK(render_chat("plain", {}, false).empty());
}

TEST_CASE("the generation prompt is where the assistant's turn begins", "[core][cpu][tokenizer]") {
  for (const std::string& name : chat_template_names()) {
    const std::vector<Message> question(kTalk.begin(), kTalk.begin() + 2);
    const std::string prompt = render_chat(name, question, true);
    const std::string whole = render_chat(name, kTalk, false);
    CHECK(whole.substr(0, prompt.size()) == prompt);
    CHECK_THAT(whole.substr(prompt.size()), Catch::StartsWith("Hello!"));
  }
}

TEST_CASE("an unknown template or role is named", "[core][cpu][tokenizer]") {
  CHECK(chat_template_names() == std::vector<std::string>{"plain", "chatml", "llama3"});
  CHECK_THROWS_AS(render_chat("chatlm", kTalk, false), InvalidArgument);
  CHECK_THROWS_WITH(
      render_chat("chatlm", kTalk, false),
      Contains("\"chatlm\" is not known, did you mean \"chatml\"? (known: plain, chatml, llama3)"));
  CHECK_THROWS_WITH(render_chat("chatml", std::vector<Message>{{"tool", "x"}}, false),
                    Contains("chat template \"chatml\" has no role \"tool\""));
}

TEST_CASE("llama3's text brings its own BOS", "[core][cpu][tokenizer]") {
  nlohmann::json document = testing::tiny_byte_level({"<|begin_of_text|>", "<|start_header_id|>"});
  document["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<|begin_of_text|>"}}}}, {{"Sequence", {{"id", "A"}}}}}},
      {"special_tokens", {{"<|begin_of_text|>", {{"ids", {260}}}}}}};
  const auto tokenizer = testing::load_tokenizer(document);
  const std::string text = render_chat("llama3", kTalk, true);
  const auto twice = tokenizer->encode(text);
  CHECK(twice[0] == 260);
  CHECK(twice[1] == 260);
  const auto once = tokenizer->encode(text, false);
  CHECK(once[0] == 260);
  CHECK(once[1] == 261);
}

}  // namespace praetor
