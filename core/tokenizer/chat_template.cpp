#include "core/tokenizer/chat_template.h"

#include <array>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/tokenizer/tokenizer.h"
#include "core/tokenizer/unicode.h"

namespace praetor {

namespace {

const std::array<ChatTemplate, 3>& templates() {
  static const std::array<ChatTemplate, 3> kAll{{
      {"plain", "", "", "", "", "\n", false},
      {"chatml", "", "<|im_start|>", "\n", "<|im_end|>", "\n", false},
      // The published template pipes every content through Jinja's trim.
      {"llama3",
       "<|begin_of_text|>",
       "<|start_header_id|>",
       "<|end_header_id|>\n\n",
       "<|eot_id|>",
       "",
       true},
  }};
  return kAll;
}

/// What Python's str.strip() takes off: White_Space and the four separators U+001C to U+001F.
bool python_space(char32_t code) {
  return unicode::is_white_space(code) || (code >= 0x1C && code <= 0x1F);
}

}  // namespace

const ChatTemplate& find_chat_template(std::string_view name) {
  for (const ChatTemplate& chat : templates()) {
    if (chat.name == name) return chat;
  }
  const auto near = nearest(name, chat_template_names());
  throw InvalidArgument("chat template \"",
                        printable(name),
                        "\" is not known",
                        near ? str(", did you mean \"", *near, "\"?") : std::string(),
                        " (known: ",
                        join(chat_template_names(), ", "),
                        ")");
}

std::string open_turn(const ChatTemplate& chat, const std::string& role) {
  if (role != "system" && role != "user" && role != "assistant") {
    throw InvalidArgument("chat template \"",
                          chat.name,
                          "\" has no role \"",
                          printable(role),
                          "\"; system, user and assistant are there");
  }
  return chat.open_head.empty() ? std::string() : chat.open_head + role + chat.open_tail;
}

std::string turn_content(const ChatTemplate& chat, const std::string& content) {
  if (!chat.trims || !is_utf8(content)) return content;
  std::string_view text = content;
  while (!text.empty()) {
    size_t at = 0;
    if (!python_space(unicode::next(text, at))) break;
    text.remove_prefix(at);
  }
  while (!text.empty()) {
    const size_t last = unicode::previous(text, text.size());
    size_t at = last;
    if (!python_space(unicode::next(text, at))) break;
    text = text.substr(0, last);
  }
  return std::string(text);
}

std::string render_chat(const std::string& template_name,
                        std::span<const Message> messages,
                        bool add_generation_prompt) {
  const ChatTemplate& chat = find_chat_template(template_name);
  std::string out = chat.begin;
  for (size_t i = 0; i < messages.size(); ++i) {
    out += open_turn(chat, messages[i].role) + turn_content(chat, messages[i].content) + chat.close;
    // Without markers a newline stands between contents, and none behind the last.
    if (!chat.close.empty() || i + 1 < messages.size() || add_generation_prompt)
      out += chat.after_close;
  }
  if (add_generation_prompt) out += open_turn(chat, "assistant");
  return out;
}

const std::vector<std::string>& chat_template_names() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> all;
    for (const ChatTemplate& chat : templates()) all.push_back(chat.name);
    return all;
  }();
  return kNames;
}

}  // namespace praetor
