#include "core/tokenizer/chat_template.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/tokenizer/jinja/text.h"
#include "core/tokenizer/model_chat.h"

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

constexpr const char* kModelTemplate = "model";

/// @throws InvalidArgument naming the known ones
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
  return chat.trims && is_utf8(content) ? jinja::strip(content) : content;
}

const ModelChat& model_chat(const Tokenizer& tokenizer) {
  if (tokenizer.chat()) return *tokenizer.chat();
  throw InvalidArgument(
      "chat template \"model\": the tokenizer's folder has none (chat_template.jinja, or "
      "chat_template in tokenizer_config.json); plain, chatml and llama3 are built in");
}

std::vector<ChatTurn> named_turns(const ChatTemplate& chat, std::span<const Message> messages) {
  std::vector<ChatTurn> out;
  std::string pending = chat.begin;
  for (const Message& message : messages) {
    pending += open_turn(chat, message.role);
    if (message.role == "assistant") {
      out.push_back({std::move(pending), turn_content(chat, message.content), chat.close});
      pending = chat.after_close;
    } else {
      pending += turn_content(chat, message.content) + chat.close + chat.after_close;
    }
  }
  return out;
}

constexpr const char* kBlanks = " \t\n\r";

std::string_view without_blanks(std::string_view text) {
  const size_t begin = std::min(text.find_first_not_of(kBlanks), text.size());
  return text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
}

/// Cuts `text` behind the message's content, where it stands there, and leaves out blanks at the
/// end. False when it does not.
bool set_answer(ChatTurn& turn, std::string_view text, const std::string& content) {
  text = text.substr(0, text.find_last_not_of(kBlanks) + 1);
  const std::string_view core = without_blanks(content);
  const size_t at = text.rfind(core);
  const bool found = at != std::string_view::npos;
  const size_t end = core.empty() ? 0 : (found ? at + core.size() : text.size());
  turn.answer = text.substr(0, end);
  turn.close = text.substr(end);
  return found;
}

[[noreturn]] void changes(size_t message) {
  throw DataError(
      "the model's chat template shows message ",
      message,
      " otherwise once the conversation goes on, so the answers cannot be told from the "
      "rest; mark them in it with {% generation %} and {% endgeneration %}, or give "
      "rows with one answer each");
}

std::vector<ChatTurn> model_turns(const ModelChat& chat, std::span<const Message> messages) {
  const jinja::Template::Rendered whole = chat.render(messages, false);
  const auto answers =
      static_cast<size_t>(std::ranges::count(messages, std::string("assistant"), &Message::role));
  const bool marked = whole.generation.size() == answers;
  std::vector<ChatTurn> out;
  size_t done = 0;  // bytes of the whole that stand in turns
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant") continue;
    size_t begin = 0, end = 0;
    bool same = true;  // this answer stands in the whole as it stood at the end of a conversation
    if (marked) {
      std::tie(begin, end) = whole.generation[out.size()];
    } else {
      const std::string given = chat.render(messages.first(i), true).text;
      const std::string through = chat.render(messages.first(i + 1), false).text;
      begin = given.size();
      end = static_cast<size_t>(std::ranges::mismatch(through, whole.text).in1 - through.begin());
      same = end == through.size();
      if (!whole.text.starts_with(given) || end < begin || begin < done) changes(i);
    }
    ChatTurn& turn = out.emplace_back();
    const auto text = std::string_view(whole.text).substr(begin, end - begin);
    if (!set_answer(turn, text, messages[i].content) && !same) changes(i);
    turn.before = whole.text.substr(done, begin - done);
    done = begin + turn.answer.size() + turn.close.size();
  }
  return out;
}

}  // namespace

std::vector<ChatTurn> chat_turns(const Tokenizer& tokenizer,
                                 const std::string& template_name,
                                 std::span<const Message> messages) {
  if (template_name == kModelTemplate) return model_turns(model_chat(tokenizer), messages);
  return named_turns(find_chat_template(template_name), messages);
}

std::string render_chat(const Tokenizer& tokenizer,
                        const std::string& template_name,
                        std::span<const Message> messages,
                        bool add_generation_prompt) {
  if (template_name == kModelTemplate)
    return model_chat(tokenizer).render(messages, add_generation_prompt).text;
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
    all.emplace_back(kModelTemplate);
    return all;
  }();
  return kNames;
}

}  // namespace praetor
