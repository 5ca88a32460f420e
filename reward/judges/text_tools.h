#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/bounded_regex.h"

namespace praetor {

/// What judges do with texts. All take well-formed UTF-8; views are into the text that was given.

/// Without white space (of Unicode, and the separators U+001C to U+001F) at both ends.
std::string_view strip(std::string_view text);
/// Without any of the ASCII `characters` at both ends.
std::string_view strip(std::string_view text, std::string_view characters);
inline bool is_blank(std::string_view text) {
  return strip(text).empty();
}

/// Every character in its simple lower case.
std::string lower_case(std::string_view text);
/// Some character has a case, and every one that has is upper (lower) case.
bool is_upper_case(std::string_view text);
bool is_lower_case(std::string_view text);

/// Runs of characters between white space.
std::vector<std::string_view> words_of(std::string_view text);
/// The parts between the occurrences of `mark`, at least one.
std::vector<std::string_view> split(std::string_view text, std::string_view mark);
std::vector<std::string_view> split(std::string_view text,
                                    const BoundedRegex& mark,
                                    const Deadline& deadline);
/// Matches from left to right, none within another.
std::vector<std::string_view> find_all(std::string_view text,
                                       const BoundedRegex& pattern,
                                       const Deadline& deadline);

}  // namespace praetor
