#pragma once

#include <cstdint>
#include <string_view>

namespace praetor {

/// Lengths of well-formed UTF-8 text.
int64_t count_characters(std::string_view text);  ///< Unicode code points
/// Runs of characters between Unicode white space. (Scripts written without spaces count as one
/// word.)
int64_t count_words(std::string_view text);
/// The last `characters` code points.
std::string_view last_characters(std::string_view text, int64_t characters);

}  // namespace praetor
