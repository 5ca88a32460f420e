#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace praetor::byte_level {

/// GPT-2's way to write any byte as a visible character: printable Latin-1 stands for itself, the
/// other 68 bytes for U+0100 onwards (github.com/openai/gpt-2, encoder.py, bytes_to_unicode).

/// Each byte of `bytes` as its character.
std::string encode(std::string_view bytes);
/// The bytes of a token; a token that holds any other character stands for its own UTF-8 bytes, as
/// in Hugging Face.
std::string decode(std::string_view token);

/// The split pattern of GPT-2.
extern const char* const kSplitPattern;

}  // namespace praetor::byte_level
