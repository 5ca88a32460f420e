#include "core/data/example.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/tokenizer/chat_template.h"

namespace praetor {

namespace {

/// What the tokenizer puts before a text (BOS), without what it may put behind it.
std::vector<int64_t> opening_tokens(const Tokenizer& tokenizer) {
  std::vector<int64_t> frame = tokenizer.encode("", true);
  const bool only_bos = frame.size() == 1 && tokenizer.bos() && *tokenizer.bos() == frame[0];
  if (!frame.empty() && tokenizer.eos() && frame.back() == *tokenizer.eos() && !only_bos)
    frame.pop_back();
  return frame;
}

void append(std::vector<int64_t>& tokens, const std::vector<int64_t>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
}

/// The start of a sequence: BOS once, also when a template writes it as text.
std::vector<int64_t> first_tokens(const std::string& text, const Tokenizer& tokenizer) {
  std::vector<int64_t> tokens = opening_tokens(tokenizer);
  const std::vector<int64_t> body = tokenizer.encode(text, false);
  const bool twice = !tokens.empty() && body.size() >= tokens.size() &&
                     std::equal(tokens.begin(), tokens.end(), body.begin());
  if (twice) return body;
  append(tokens, body);
  return tokens;
}

/// Text that goes on after other tokens. A tokenizer that puts a space before every text it encodes
/// (Llama's dummy prefix) would double one that is there already.
std::vector<int64_t> continuation_tokens(const std::string& text, const Tokenizer& tokenizer) {
  if (text.starts_with(' ')) {
    std::vector<int64_t> pair = tokenizer.encode("a", false);
    append(pair, std::vector<int64_t>(pair));
    if (tokenizer.decode(pair) == "a a")
      return tokenizer.encode(std::string_view(text).substr(1), false);
  }
  return tokenizer.encode(text, false);
}

bool uses_template(const Row& row, const TextFormat& format) {
  return !row.messages.empty() || format.wrap_prompt;
}

/// The conversation a row holds, up to where the assistant is to answer.
std::vector<Message> prompt_messages(const Row& row) {
  if (row.messages.empty()) return {{"user", row.prompt}};
  std::vector<Message> messages = row.messages;
  if (messages.back().role == "assistant") messages.pop_back();
  return messages;
}

/// Builds one example, part by part.
class ExampleBuilder {
 public:
  ExampleBuilder(const Tokenizer& tokenizer, const TextFormat& format, int64_t eos)
      : tokenizer_(tokenizer), format_(format), eos_(eos) {}

  void context(const std::vector<int64_t>& tokens) { add(tokens, 0); }
  void context(const std::string& text) {
    if (text.empty()) return;
    add(example_.tokens.empty() ? first_tokens(text, tokenizer_) : tokenizer_.encode(text, false),
        0);
  }
  /// An answer and the marker that ends it; `last`: nothing comes after, so that the stop token
  /// ends it.
  void answer(const std::string& text, const std::string& close, bool last) {
    add(continuation_tokens(text, tokenizer_), 1);
    if (!close.empty()) add(tokenizer_.encode(close, false), 1);
    const bool ended = !close.empty() && !example_.tokens.empty() && example_.tokens.back() == eos_;
    if (last && format_.append_eos && !ended) add({eos_}, 1);
  }
  Example take(const Row& row) {
    if (!example_.target.empty()) example_.target[0] = 0;  // nothing predicts the first token
    example_.margin = row.margin;
    return std::move(example_);
  }

 private:
  void add(const std::vector<int64_t>& tokens, uint8_t target) {
    append(example_.tokens, tokens);
    example_.target.resize(example_.tokens.size(), target);
  }
  const Tokenizer& tokenizer_;
  const TextFormat& format_;
  int64_t eos_;
  Example example_;
};

Example conversation_example(const Row& row,
                             const Tokenizer& tokenizer,
                             const TextFormat& format,
                             int64_t eos) {
  std::span<const Message> messages = row.messages;
  while (!messages.empty() && messages.back().role != "assistant")
    messages = messages.first(messages.size() - 1);
  if (messages.empty())
    throw DataError("line ", row.line, ": no message of the assistant to train on");
  ExampleBuilder builder(tokenizer, format, eos);
  // Text between answers is encoded in one go, as generation sees it.
  const std::vector<ChatTurn> turns = chat_turns(tokenizer, format.chat_template, messages);
  for (size_t i = 0; i < turns.size(); ++i) {
    builder.context(turns[i].before);
    builder.answer(turns[i].answer, turns[i].close, i + 1 == turns.size());
  }
  return builder.take(row);
}

Example answer_example(const Row& row,
                       const std::string& answer,
                       const Tokenizer& tokenizer,
                       const TextFormat& format,
                       int64_t eos) {
  ExampleBuilder builder(tokenizer, format, eos);
  builder.context(prompt_tokens(row, tokenizer, format));
  if (uses_template(row, format)) {
    std::vector<Message> messages = prompt_messages(row);
    messages.push_back({"assistant", answer});
    const ChatTurn turn = chat_turns(tokenizer, format.chat_template, messages).back();
    builder.answer(turn.answer, turn.close, true);
  } else {
    builder.answer(answer, "", true);
  }
  return builder.take(row);
}

}  // namespace

std::string prompt_text(const Row& row, const Tokenizer& tokenizer, const TextFormat& format) {
  if (!uses_template(row, format)) return row.prompt;
  return render_chat(tokenizer, format.chat_template, prompt_messages(row), true);
}

std::vector<int64_t> prompt_tokens(const Row& row,
                                   const Tokenizer& tokenizer,
                                   const TextFormat& format) {
  return first_tokens(prompt_text(row, tokenizer, format), tokenizer);
}

Example completion_example(const Row& row,
                           const Tokenizer& tokenizer,
                           const TextFormat& format,
                           int64_t eos) {
  if (!row.messages.empty()) return conversation_example(row, tokenizer, format, eos);
  return answer_example(row, row.completion, tokenizer, format, eos);
}

std::vector<Example> preference_examples(const Row& row,
                                         const Tokenizer& tokenizer,
                                         const TextFormat& format,
                                         int64_t eos) {
  std::vector<Example> pair;
  pair.push_back(answer_example(row, row.chosen, tokenizer, format, eos));
  pair.push_back(answer_example(row, row.rejected, tokenizer, format, eos));
  return pair;
}

}  // namespace praetor
