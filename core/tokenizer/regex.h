#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace praetor {

/// A half-open range of bytes.
using Span = std::pair<size_t, size_t>;

/// A regular expression of a tokenizer.json, compiled with PCRE2 to mean what Oniguruma (Hugging
/// Face's library) makes of it. Constructs that the two read differently are refused. Immutable;
/// any thread.
class Regex {
 public:
  /// @throws DataError that begins with `where` and names what is wrong or not supported: bad
  /// syntax, anchors, nested classes, options other than (?i), a pattern that can match nothing at
  /// all.
  Regex(std::string_view pattern, const std::string& where);
  /// Matches exactly these characters.
  static Regex literal(std::string_view text, const std::string& where);

  /// Every match from left to right, none overlapping. `text` is well-formed UTF-8.
  /// @throws DataError when the search runs past PCRE2's limits
  std::vector<Span> find_all(std::string_view text) const;
  /// Every match replaced by `content`, taken literally.
  std::string replace_all(std::string_view text, std::string_view content) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

/// Oniguruma's pattern in PCRE2's words (exposed for its test). @throws DataError as Regex does
std::string translate_pattern(std::string_view pattern, const std::string& where);

}  // namespace praetor
