#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace praetor {

/// The candidate with the smallest edit distance to `word` (insert, delete, replace, swap of
/// neighbours), if it is near enough to be a slip of the finger: at most a third of the word, at
/// least one.
std::optional<std::string> nearest(std::string_view word,
                                   const std::vector<std::string>& candidates);

std::string join(const std::vector<std::string>& words, std::string_view between);

/// True when the bytes are well-formed UTF-8 (no overlong forms, no surrogates, at most U+10FFFF).
bool is_utf8(std::string_view bytes);

/// Text that may hold anything, made safe to stand in a message: control and broken bytes escaped,
/// cut to `limit` bytes.
std::string printable(std::string_view bytes, size_t limit = 80);

}  // namespace praetor
