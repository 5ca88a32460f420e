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

/// The named templates ask nothing of it.
std::unique_ptr<Tokenizer> any() {
  return testing::load_tokenizer(testing::tiny_byte_level({}));
}

}  // namespace

TEST_CASE("each template renders a conversation as published", "[core][cpu][tokenizer]") {
  CHECK(render_chat(*any(), "plain", kTalk, false) == "Be kind.\n Hi \n\nHello!");
  CHECK(render_chat(*any(), "chatml", kTalk, false) ==
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n");
  CHECK(render_chat(*any(), "llama3", kTalk, false) ==
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>");
  CHECK(render_chat(*any(), "llama3", std::vector<Message>{{"user", "\u3000 \x1f"}}, false) ==
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|eot_id|>");
  CHECK(render_chat(*any(), "plain", {}, false).empty());
}

TEST_CASE("the generation prompt is where the assistant's turn begins", "[core][cpu][tokenizer]") {
  for (const std::string name : {"plain", "chatml", "llama3"}) {
    const std::vector<Message> question(kTalk.begin(), kTalk.begin() + 2);
    const std::string prompt = render_chat(*any(), name, question, true);
    const std::string whole = render_chat(*any(), name, kTalk, false);
    CHECK(whole.substr(0, prompt.size()) == prompt);
    CHECK_THAT(whole.substr(prompt.size()), Catch::StartsWith("Hello!"));
  }
}

TEST_CASE("an unknown template or role is named", "[core][cpu][tokenizer]") {
  CHECK(chat_template_names() == std::vector<std::string>{"plain", "chatml", "llama3", "model"});
  CHECK_THROWS_AS(render_chat(*any(), "chatlm", kTalk, false), InvalidArgument);
  CHECK_THROWS_WITH(render_chat(*any(), "chatlm", kTalk, false),
                    Contains("\"chatlm\" is not known, did you mean \"chatml\"? (known: plain, "
                             "chatml, llama3, model)"));
  CHECK_THROWS_WITH(render_chat(*any(), "chatml", std::vector<Message>{{"tool", "x"}}, false),
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
  const std::string text = render_chat(*any(), "llama3", kTalk, true);
  const auto twice = tokenizer->encode(text);
  CHECK(twice[0] == 260);
  CHECK(twice[1] == 260);
  const auto once = tokenizer->encode(text, false);
  CHECK(once[0] == 260);
  CHECK(once[1] == 261);
}

TEST_CASE("the template of the model's folder tells answers from the rest",
          "[core][cpu][tokenizer]") {
  const auto turns = [](const std::string& source, const std::vector<Message>& talk) {
    const auto tokenizer = testing::load_tokenizer(
        testing::tiny_byte_level({"<eos>"}), {{"eos_token", "<eos>"}, {"chat_template", source}});
    std::vector<std::string> out;
    for (const ChatTurn& turn : chat_turns(*tokenizer, "model", talk))
      out.insert(out.end(), {turn.before, turn.answer, turn.close});
    return out;
  };
  const std::vector<Message> talk = {
      {"user", "u1"}, {"assistant", " a1 "}, {"user", "u2"}, {"assistant", "a2"}};
  const std::string plain =
      "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}"
      "{{ eos_token if m.role == 'assistant' }}\n{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}";
  const std::vector<std::string> wanted = {
      "[user]u1\n[assistant]", "a1", "<eos>", "\n[user]u2\n[assistant]", "a2", "<eos>"};
  CHECK(turns(plain, talk) == wanted);
  // Without the end token behind it the last answer ends otherwise than those before it.
  CHECK(turns("{% for m in messages %}{{ m.content | trim }};{% endfor %}{% if not "
              "add_generation_prompt %}{{ eos_token }}{% endif %}",
              talk) == std::vector<std::string>{"u1;", "a1", ";", "u2;", "a2", ";<eos>"});
  // Thoughts of an earlier answer are left out once the talk goes on.
  const std::string forgets =
      "{% for m in messages %}{% if m.role == 'user' %}<{{ m.content }}>{% else %}"
      "{{ m.content.split('|')[-1] if not loop.last else m.content }};{% endif %}{% endfor %}";
  const std::vector<Message> thoughts = {
      {"user", "u1"}, {"assistant", "hm|a1"}, {"user", "u2"}, {"assistant", "a2"}};
  CHECK_THROWS_AS(turns(forgets, thoughts), DataError);
  CHECK_THROWS_WITH(turns("{{ messages | length }}" + forgets, thoughts),
                    Contains("shows message 1 otherwise") && Contains("{% generation %}"));
  const std::string marked =
      "{{ messages | length }}{% for m in messages %}{% if m.role == 'user' %}<{{ m.content }}>"
      "{% else %}{% generation %}{{ m.content.split('|')[-1] }};{% endgeneration %}{% endif %}"
      "{% endfor %}";
  CHECK(turns(marked, thoughts) == std::vector<std::string>{"4<u1>", "a1;", "", "<u2>", "a2", ";"});

  CHECK_THROWS_WITH(render_chat(*any(), "model", talk, true), Contains("folder has none"));
  CHECK_THROWS_WITH(turns("{% include 'x' %}", talk),
                    Contains("tokenizer_config.json: chat_template: line 1"));
}

TEST_CASE("Qwen3's published template gives what transformers gives", "[core][cpu][tokenizer]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const auto tokenizer = Tokenizer::load(shared / "data" / "tokenizer-qwen3");
  const auto golden = nlohmann::json::parse(read_file(testing::golden("chat.json")));
  for (const auto& one : golden["qwen3"]) {
    std::vector<Message> messages;
    for (const auto& m : one["messages"]) messages.push_back({m["role"], m["content"]});
    CHECK(render_chat(*tokenizer, "model", messages, false) == one["texts"][0].get<std::string>());
    CHECK(render_chat(*tokenizer, "model", messages, true) == one["texts"][1].get<std::string>());
  }
}

}  // namespace praetor
