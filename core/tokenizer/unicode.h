#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace praetor::unicode {

/// Appends a code point as UTF-8.
void append(std::string& out, char32_t code);

/// Code point at `at` of well-formed UTF-8, and `at` moved behind it.
char32_t next(std::string_view text, size_t& at);

/// Start of the character that ends before `end` (well-formed UTF-8, end > 0).
size_t previous(std::string_view text, size_t end);

bool is_white_space(char32_t code);  ///< property White_Space
bool is_word(char32_t code);         ///< \w: letters, marks, decimal digits, connectors, joiners
bool is_letter(char32_t code);       ///< categories L*
bool is_upper(char32_t code);        ///< category Lu
bool is_lower(char32_t code);        ///< category Ll
bool is_title(char32_t code);        ///< category Lt
char32_t lower(char32_t code);       ///< simple lower case; the code itself when it has none
char32_t upper(char32_t code);       ///< simple upper case, likewise

/// End of the extended grapheme cluster (UAX 29) that begins at `begin` (well-formed UTF-8, begin <
/// its size).
size_t cluster_end(std::string_view text, size_t begin);

/// Byte at which well-formed UTF-8 ends, or npos when all of it is.
size_t find_broken(std::string_view bytes);

enum class Form { kNfc, kNfd, kNfkc, kNfkd };
/// Unicode normalisation of well-formed UTF-8 (UAX 15).
std::string normalize(std::string_view text, Form form);

/// Bytes to text as they come: broken sequences become one U+FFFD for each maximal subpart (Unicode
/// 15, table 3-8, as Rust's from_utf8_lossy), and a character is returned when its last byte is
/// here.
class LossyUtf8 {
 public:
  void push(uint8_t byte, std::string& out);
  void finish(std::string& out);  ///< a character cut short becomes U+FFFD

 private:
  std::string pending_;    ///< start of a character, at most 3 bytes
  int missing_ = 0;        ///< continuation bytes still to come
  uint8_t lowest_ = 0x80;  ///< bounds of the next continuation byte
  uint8_t highest_ = 0xBF;
};

}  // namespace praetor::unicode
