#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace praetor {

/// The markers of a chat template. A conversation is `begin`, then for each message
/// open_head + role + open_tail + content + close + after_close.
struct ChatTemplate {
  std::string name;
  std::string begin;  ///< before the first message
  std::string open_head;
  std::string open_tail;  ///< with no role between them when `open_head` is empty
  std::string
      close;  ///< what the model writes to end its turn; empty when the template has no such marker
  std::string after_close;  ///< what follows the end of a turn before the next opens
  bool trims = false;       ///< white space around the content is left out
};

/// An answer of the assistant in a conversation.
struct ChatTurn {
  std::string before;  ///< what the model is given, since the answer before
  std::string answer;
  std::string close;  ///< what ends the answer; the model writes it too
};

/// The answers of a conversation that ends with one. With a model's own template they are what
/// {% generation %} marks, or else what is added to the text up to each of them with the
/// assistant's turn opened.
/// @throws as render_chat; DataError when the model's template shows a conversation otherwise once
/// it goes on, so that its answers cannot be told from the rest
std::vector<ChatTurn> chat_turns(const Tokenizer& tokenizer,
                                 const std::string& template_name,
                                 std::span<const Message> messages);

}  // namespace praetor
