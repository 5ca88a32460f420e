#pragma once

#include <string>
#include <string_view>

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

/// @throws InvalidArgument naming the known ones
const ChatTemplate& find_chat_template(std::string_view name);

/// "<|im_start|>user\n" and the like. @throws InvalidArgument when the template lacks the role
std::string open_turn(const ChatTemplate& chat, const std::string& role);
/// The content as the template shows it.
std::string turn_content(const ChatTemplate& chat, const std::string& content);

}  // namespace praetor
