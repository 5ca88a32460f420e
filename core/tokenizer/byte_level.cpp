#include "core/tokenizer/byte_level.h"

#include "core/tokenizer/unicode.h"

namespace praetor::byte_level {

namespace {

struct Table {
  std::array<std::string, 256> character;
  std::array<int16_t, 512> byte;  ///< of a code point, or -1

  Table() {
    byte.fill(-1);
    char32_t spare = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      const bool itself = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const char32_t code = itself ? b : spare++;
      unicode::append(character[b], code);
      byte[code] = static_cast<int16_t>(b);
    }
  }
};

const Table& table() {
  static const Table kTable;
  return kTable;
}

}  // namespace

const char* const kSplitPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string encode(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) out += table().character[static_cast<uint8_t>(c)];
  return out;
}

std::string decode(std::string_view token) {
  std::string out;
  out.reserve(token.size());
  size_t at = 0;
  while (at < token.size()) {
    const char32_t code = unicode::next(token, at);
    const int16_t byte = code < table().byte.size() ? table().byte[code] : int16_t{-1};
    if (byte < 0) return std::string(token);
    out.push_back(static_cast<char>(byte));
  }
  return out;
}

}  // namespace praetor::byte_level
