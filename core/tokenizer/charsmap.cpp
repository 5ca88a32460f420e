#include "core/tokenizer/charsmap.h"

#include "core/base/text.h"
#include "core/tokenizer/unicode.h"

namespace praetor {

namespace {

constexpr size_t kLongestCluster = 5;  // bytes that are looked up whole

int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

std::string from_base64(const JsonView& json) {
  std::string text = json.string();
  if (text.size() % 4 != 0) json.fail("is not base64: its length is no multiple of 4");
  for (int i = 0; i < 2 && text.ends_with('='); ++i) text.pop_back();
  std::string out;
  uint32_t bits = 0;
  int count = 0;  // of bits that wait
  for (const char c : text) {
    const int digit = base64_digit(c);
    if (digit < 0)
      json.fail("is not base64: \"", printable(std::string(1, c)), "\" is no digit of it");
    bits = (bits << 6) | static_cast<uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out.push_back(static_cast<char>(bits >> count));
  }
  return out;
}

uint32_t little_endian(std::string_view bytes, size_t at) {
  uint32_t out = 0;
  for (size_t i = 0; i < 4; ++i) out |= uint32_t{static_cast<uint8_t>(bytes[at + i])} << (8 * i);
  return out;
}

// A unit of the double array: the byte that leads to it, where its children begin (relative, by
// exclusive or), and whether its first child is a leaf, whose unit holds a value.
uint32_t label_of(uint32_t unit) {
  return unit & 0x800000FF;
}
uint32_t offset_of(uint32_t unit) {
  return (unit >> 10) << ((unit & 0x200) >> 6);
}
bool has_leaf(uint32_t unit) {
  return (unit & 0x100) != 0;
}
uint32_t value_of(uint32_t unit) {
  return unit & 0x7FFFFFFF;
}

}  // namespace

Charsmap::Charsmap(const JsonView& json) {
  const std::string bytes = from_base64(json);
  if (bytes.size() < 4) json.fail("is too short");
  const size_t trie = little_endian(bytes, 0);
  if (trie == 0 || trie % 4 != 0 || trie > bytes.size() - 4)
    json.fail("a trie of ", trie, " bytes does not fit into its ", bytes.size(), " bytes");
  for (size_t at = 4; at < 4 + trie; at += 4) units_.push_back(little_endian(bytes, at));
  replacements_ = bytes.substr(4 + trie);
  if (!is_utf8(replacements_)) json.fail("its replacements are not UTF-8");
}

bool Charsmap::replace(std::string_view text, std::string& out) const {
  size_t at = offset_of(units_[0]);
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    at ^= byte;
    if (byte == 0 || at >= units_.size() || label_of(units_[at]) != byte) return false;
    const uint32_t unit = units_[at];
    at ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    if (at >= units_.size()) return false;
    const size_t begin = value_of(units_[at]);
    if (begin > replacements_.size()) return false;
    out += std::string_view(replacements_).substr(begin, replacements_.find('\0', begin) - begin);
    return true;
  }
  return false;
}

std::string Charsmap::apply(std::string_view text) const {
  std::string out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = unicode::cluster_end(text, begin);
    if (end - begin <= kLongestCluster && replace(text.substr(begin, end - begin), out)) {
      begin = end;
      continue;
    }
    while (begin < end) {
      const size_t from = begin;
      unicode::next(text, begin);
      const std::string_view character = text.substr(from, begin - from);
      if (!replace(character, out)) out += character;
    }
  }
  return out;
}

}  // namespace praetor
