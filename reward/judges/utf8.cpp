#include "reward/judges/utf8.h"

#include <cstddef>

namespace praetor {

namespace {

bool continues(char byte) {
  return (static_cast<uint8_t>(byte) & 0xC0) == 0x80;
}

/// Code point at `at`, which moves behind it. The text is well-formed.
uint32_t next(std::string_view text, size_t& at) {
  const auto first = static_cast<uint8_t>(text[at++]);
  uint32_t point = first < 0x80   ? first
                   : first < 0xE0 ? first & 0x1Fu
                   : first < 0xF0 ? first & 0x0Fu
                                  : first & 0x07u;
  while (at < text.size() && continues(text[at])) {
    point = point << 6 | (static_cast<uint8_t>(text[at++]) & 0x3Fu);
  }
  return point;
}

/// Unicode's White_Space property.
bool is_space(uint32_t point) {
  return (point >= 0x09 && point <= 0x0D) || point == 0x20 || point == 0x85 || point == 0xA0 ||
         point == 0x1680 || (point >= 0x2000 && point <= 0x200A) || point == 0x2028 ||
         point == 0x2029 || point == 0x202F || point == 0x205F || point == 0x3000;
}

}  // namespace

int64_t count_characters(std::string_view text) {
  int64_t count = 0;
  for (const char byte : text) count += !continues(byte);
  return count;
}

int64_t count_words(std::string_view text) {
  int64_t count = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const bool space = is_space(next(text, at));
    count += !space && !inside;
    inside = !space;
  }
  return count;
}

std::string_view last_characters(std::string_view text, int64_t characters) {
  size_t begin = text.size();
  while (begin > 0 && characters > 0) {
    --begin;
    characters -= !continues(text[begin]);
  }
  return text.substr(begin);
}

}  // namespace praetor
