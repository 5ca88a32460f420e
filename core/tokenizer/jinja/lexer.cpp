#include "core/tokenizer/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/base/error.h"
#include "core/tokenizer/unicode.h"

namespace praetor::jinja {
namespace {

constexpr std::string_view kBlanks = " \t\n\r\v\f";

bool name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool digit(char c) {
  return c >= '0' && c <= '9';
}

/// "\r\n" and "\r" as "\n", without one newline at the end.
std::string plain_lines(const std::string& source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') continue;
      out += '\n';
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const size_t open = find_open();
      text(open);
      if (open == std::string_view::npos) break;
      at_ = open + 2;
      const char sign = at_ < source_.size() && (peek() == '-' || peek() == '+') ? peek() : ' ';
      if (sign != ' ') ++at_;
      if (source_[open + 1] == '#') {
        comment();
      } else if (source_[open + 1] == '%' && raw()) {
        continue;
      } else {
        tag(source_[open + 1] == '%');
      }
    }
    push(TokenKind::kEnd, "");
    return std::move(out_);
  }

 private:
  char peek(size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }
  int64_t line() const {
    return 1 +
           std::count(source_.begin(), source_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
  }
  void push(TokenKind kind, std::string text) { out_.push_back({kind, std::move(text), line()}); }
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError("line ", line(), ": ", what);
  }

  size_t find_open(size_t from) const {
    for (size_t i = from; i + 1 < source_.size(); ++i) {
      if (source_[i] == '{' &&
          std::string_view("{%#").find(source_[i + 1]) != std::string_view::npos)
        return i;
    }
    return std::string_view::npos;
  }
  size_t find_open() const { return find_open(at_); }

  /// What stands before the tag at `open`, less the blanks that the tag takes away.
  void text(size_t open) {
    std::string_view part = source_.substr(at_, open == std::string_view::npos ? open : open - at_);
    if (open != std::string_view::npos) {
      const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
      if (sign == '-') {
        part = part.substr(0, part.find_last_not_of(kBlanks) + 1);
      } else if (sign != '+' && source_[open + 1] != '{') {
        const size_t newline = part.rfind('\n');
        const bool starts_line = at_ == 0 || source_[at_ - 1] == '\n';
        const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
        const bool whole = newline != std::string_view::npos || starts_line;
        if (whole && part.substr(begin).find_first_not_of(kBlanks) == std::string_view::npos)
          part = part.substr(0, begin);
      }
    }
    if (!part.empty()) push(TokenKind::kText, std::string(part));
    if (open == std::string_view::npos) at_ = source_.size();
  }

  /// Moves behind a tag's end and what it takes away after it.
  void after(char sign, bool trims) {
    if (sign == '-') {
      at_ = std::min(source_.find_first_not_of(kBlanks, at_), source_.size());
    } else if (trims && sign != '+' && peek() == '\n') {
      ++at_;
    }
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string_view::npos) fail("this comment has no end (\"#}\")");
    const char sign = end > at_ ? source_[end - 1] : ' ';
    at_ = end + 2;
    after(sign, true);
  }

  /// Takes "{% raw %} ... {% endraw %}" when that is what begins here, as text.
  bool raw() {
    const auto word_tag = [&](size_t from, std::string_view word) -> size_t {  // its end, or npos
      size_t i = source_.find_first_not_of(kBlanks, from);
      if (i == std::string_view::npos || source_.substr(i, word.size()) != word)
        return std::string_view::npos;
      i = source_.find_first_not_of(kBlanks, i + word.size());
      if (i != std::string_view::npos && (source_[i] == '-' || source_[i] == '+')) ++i;
      return i != std::string_view::npos && source_.substr(i, 2) == "%}" ? i + 2
                                                                         : std::string_view::npos;
    };
    const size_t begin = word_tag(at_, "raw");
    if (begin == std::string_view::npos) return false;
    at_ = begin;
    after(source_[begin - 3], true);
    for (size_t i = source_.find("{%", at_); i != std::string_view::npos;
         i = source_.find("{%", i + 2)) {
      const size_t inside = i + 2 + (source_[i + 2] == '-' || source_[i + 2] == '+' ? 1 : 0);
      const size_t end = word_tag(inside, "endraw");
      if (end == std::string_view::npos) continue;
      text(i);
      at_ = end;
      after(source_[end - 3], true);
      return true;
    }
    fail("\"raw\" has no \"endraw\"");
  }

  void tag(bool block) {
    push(block ? TokenKind::kTagBegin : TokenKind::kPrintBegin, "");
    const std::string_view close = block ? "%}" : "}}";
    int64_t braces = 0;
    while (true) {
      at_ = std::min(source_.find_first_not_of(kBlanks, at_), source_.size());
      if (at_ == source_.size()) fail(str("this tag has no end (\"", close, "\")"));
      const bool sign = peek() == '-' || (block && peek() == '+');
      if (braces == 0 && source_.substr(at_ + (sign ? 1 : 0), 2) == close) {
        push(block ? TokenKind::kTagEnd : TokenKind::kPrintEnd, "");
        const char taken = sign ? peek() : ' ';
        at_ += sign ? 3 : 2;
        after(taken, block);
        return;
      }
      if (peek() == '{') ++braces;
      if (peek() == '}') --braces;
      token();
    }
  }

  void token() {
    const size_t begin = at_;
    if (name_start(peek())) {
      while (name_start(peek()) || digit(peek())) ++at_;
      return push(TokenKind::kName, std::string(source_.substr(begin, at_ - begin)));
    }
    if (digit(peek())) return number();
    if (peek() == '\'' || peek() == '"') return quoted();
    constexpr std::array<std::string_view, 6> kPairs = {"**", "//", "==", "!=", "<=", ">="};
    const std::string_view two = source_.substr(at_, 2);
    const bool pair = std::ranges::find(kPairs, two) != kPairs.end();
    if (!pair && std::string_view("+-*/%~<>=|.,:()[]{}").find(peek()) == std::string_view::npos)
      fail(str("'", peek(), "' means nothing here"));
    at_ += pair ? 2 : 1;
    push(TokenKind::kOperator, std::string(source_.substr(begin, at_ - begin)));
  }

  void number() {
    const size_t begin = at_;
    const auto digits = [&] {
      while (digit(peek()) || (peek() == '_' && digit(peek(1)))) ++at_;
    };
    digits();
    bool whole = true;
    if (peek() == '.' && digit(peek(1))) {
      whole = false;
      ++at_;
      digits();
    }
    if ((peek() == 'e' || peek() == 'E') &&
        (digit(peek(1)) || ((peek(1) == '-' || peek(1) == '+') && digit(peek(2))))) {
      whole = false;
      at_ += 2;
      digits();
    }
    std::string text(source_.substr(begin, at_ - begin));
    std::erase(text, '_');
    push(whole ? TokenKind::kInteger : TokenKind::kFloat, text);
  }

  void quoted() {
    const char quote = peek();
    const size_t begin = at_++;
    std::string text;
    while (peek() != quote) {
      if (at_ >= source_.size()) {
        at_ = begin;
        fail("this string has no end");
      }
      if (peek() != '\\') {
        text += source_[at_++];
      } else {
        ++at_;
        escape(text);
      }
    }
    push(TokenKind::kString, std::move(text));
    ++at_;
  }

  void escape(std::string& text) {
    const char c = peek();
    ++at_;
    constexpr std::string_view kFrom = "nrtbfav0\\'\"";
    constexpr std::string_view kTo{"\n\r\t\b\f\a\v\0\\'\"", 11};
    if (const size_t i = kFrom.find(c); i != std::string_view::npos) {
      text += kTo[i];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t digits = c == 'x' ? 2 : (c == 'u' ? 4 : 8);
      char32_t code = 0;
      for (size_t k = 0; k < digits; ++k) {
        const size_t value = std::string_view("0123456789abcdef")
                                 .find(static_cast<char>(
                                     peek() >= 'A' && peek() <= 'F' ? peek() - 'A' + 'a' : peek()));
        if (value > 15) fail(str("\"\\", c, "\" wants ", digits, " hexadecimal digits"));
        code = code * 16 + static_cast<char32_t>(value);
        ++at_;
      }
      if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) fail("this is no character");
      unicode::append(text, code);
    } else if (c != '\n') {
      text += {'\\', c};
    }
  }

  std::string_view source_;
  size_t at_ = 0;
  std::vector<Token> out_;
};

}  // namespace

std::vector<Token> tokenize(std::string source) {
  source = plain_lines(source);
  return Lexer(source).run();
}

}  // namespace praetor::jinja
