#pragma once

#include <string_view>

#include "rollout/grammar/expression.h"

namespace praetor::grammar {

/// What of a text a pattern describes.
enum class Extent : uint8_t {
  kWhole,  ///< all of it, as Python's re.fullmatch
  kPart,   ///< a part of it, as re.search; ^ and $ at the ends of an alternative tie it down
};

/// Parses a regular expression; it means what Python's re makes of it under re.ASCII.
///
///   characters, . (all but a line feed), [...] with ranges and ^, \d \D \w \W \s \S, \n \r \t \f
///   \v \a \0 \xHH \uHHHH \UHHHHHHHH, \ before punctuation
///   (...) (?:...) (?P<name>...) | * + ? {m} {m,} {m,n} {,n}, lazy forms too (they match the same)
///   ^ at the start and $ at the end of an alternative of the whole pattern
///
/// All characters of the tree are of Kind::kClass.
/// @param pattern  UTF-8
/// @throws InvalidArgument "offset 7: ..." for all else, the offset in bytes: look-around,
/// back-references, flags, possessive quantifiers, \b, other anchors, classes without a character
ExpressionPtr parse_pattern(std::string_view pattern, Extent extent);

}  // namespace praetor::grammar
