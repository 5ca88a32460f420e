#pragma once

#include <cctype>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "core/tokenizer/unicode.h"

namespace praetor::testing {

/// Whether all of a text matches a pattern, by following every way to read it; slow, and without
/// any automaton. Takes well-formed patterns of rollout/grammar/pattern.h without anchors.
class NaiveMatcher {
 public:
  static bool matches(std::string_view pattern, std::string_view text) {
    if (unicode::find_broken(text) != std::string_view::npos) return false;
    NaiveMatcher matcher(pattern, text);
    size_t at = 0;
    return matcher.choices(at, {0}).contains(matcher.text_.size());
  }

 private:
  using Places = std::set<size_t>;  ///< in the text: where a reading may stand

  NaiveMatcher(std::string_view pattern, std::string_view text)
      : pattern_(characters(pattern)), text_(characters(text)) {}

  static std::u32string characters(std::string_view bytes) {
    std::u32string out;
    for (size_t at = 0; at < bytes.size();) out += unicode::next(bytes, at);
    return out;
  }

  char32_t peek(size_t at) const { return at < pattern_.size() ? pattern_[at] : 0; }

  Places choices(size_t& at, const Places& from) {
    Places out = run(at, from);
    while (peek(at) == U'|') {
      ++at;
      out.merge(run(at, from));
    }
    return out;
  }

  Places run(size_t& at, Places from) {
    while (at < pattern_.size() && peek(at) != U'|' && peek(at) != U')') from = repeated(at, from);
    return from;
  }

  Places repeated(size_t& at, const Places& from) {
    const size_t start = at;
    Places once = one(at, from);
    size_t least = 1;
    size_t most = 1;
    const size_t endless = text_.size() + 10;
    const char32_t c = peek(at);
    if (c == U'*' || c == U'+' || c == U'?') {
      ++at;
      least = c == U'+' ? 1 : 0;
      most = c == U'?' ? 1 : endless;
    } else if (c == U'{') {
      ++at;
      least = number(at, 0);
      most = least;
      if (peek(at) == U',') most = number(++at, endless);
      ++at;
    } else {
      return once;
    }
    if (peek(at) == U'?') ++at;
    Places out;
    Places now = from;
    for (size_t i = 0; i <= std::max(most, least); ++i) {
      if (i >= least) out.insert(now.begin(), now.end());
      size_t again = start;
      now = one(again, now);
    }
    return out;
  }

  size_t number(size_t& at, size_t otherwise) const {
    if (!(peek(at) >= U'0' && peek(at) <= U'9')) return otherwise;
    size_t value = 0;
    for (; peek(at) >= U'0' && peek(at) <= U'9'; ++at) value = value * 10 + (peek(at) - U'0');
    return value;
  }

  Places one(size_t& at, const Places& from) {
    if (peek(at) == U'(') {
      ++at;
      if (peek(at) == U'?') {
        while (peek(at) != U':' && peek(at) != U'>') ++at;
        ++at;
      }
      Places out = choices(at, from);
      ++at;
      return out;
    }
    const size_t start = at;
    Places out;
    holds(at = start, 0);  // moves behind the character or class
    for (const size_t place : from) {
      size_t again = start;
      if (place < text_.size() && holds(again, text_[place])) out.insert(place + 1);
    }
    return out;
  }

  bool holds(size_t& at, char32_t c) {
    if (peek(at) == U'.') return ++at, c != U'\n';
    if (peek(at) == U'[') return ++at, in_class(at, c);
    if (peek(at) != U'\\') return peek(at++) == c;
    return escape(++at, c);
  }

  bool in_class(size_t& at, char32_t c) {
    const bool negated = peek(at) == U'^';
    if (negated) ++at;
    bool found = false;
    for (bool first = true; first || peek(at) != U']'; first = false) {
      const size_t start = at;
      const bool single = peek(at) == U'\\' ? escape(++at, c) : peek(at++) == c;
      if (peek(at) == U'-' && peek(at + 1) != U']') {
        size_t low = start;
        size_t high = ++at;
        found = found || (value(low) <= c && c <= value(high));
        at = high;
      } else {
        found = found || single;
      }
    }
    ++at;
    return found != negated;
  }

  char32_t value(size_t& at) const {
    if (peek(at) != U'\\') return peek(at++);
    ++at;
    return escaped(at);
  }

  static bool is_word(char32_t c) {
    return c < 0x80 && (std::isalnum(static_cast<int>(c)) != 0 || c == U'_');
  }
  static bool is_space(char32_t c) { return c == U' ' || (c >= 9 && c <= 13); }
  static bool is_digit(char32_t c) { return c >= U'0' && c <= U'9'; }

  /// What stands behind a backslash.
  bool escape(size_t& at, char32_t c) const {
    switch (peek(at)) {
      case U'd':
        return ++at, is_digit(c);
      case U'D':
        return ++at, !is_digit(c);
      case U'w':
        return ++at, is_word(c);
      case U'W':
        return ++at, !is_word(c);
      case U's':
        return ++at, is_space(c);
      case U'S':
        return ++at, !is_space(c);
      default:
        return escaped(at) == c;
    }
  }

  char32_t escaped(size_t& at) const {
    const char32_t c = peek(at++);
    const std::u32string_view letters = U"nrtfvab0";
    const std::u32string_view meant(U"\n\r\t\f\v\a\b\0", 8);
    if (const size_t known = letters.find(c); known != letters.npos) return meant[known];
    const size_t digits = c == U'x' ? 2 : c == U'u' ? 4 : c == U'U' ? 8 : 0;
    if (digits == 0) return c;
    char32_t code = 0;
    for (size_t i = 0; i < digits; ++i) {
      const auto digit = static_cast<char>(std::tolower(static_cast<int>(peek(at++))));
      code = code * 16 + static_cast<char32_t>(digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    return code;
  }

  std::u32string pattern_;
  std::u32string text_;
};

}  // namespace praetor::testing
