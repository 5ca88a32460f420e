#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/deadline.h"
#include "core/base/error.h"

namespace praetor {

/// A search needed more steps or memory than it may take: the pattern is of the kind that explodes
/// on this text.
class RegexLimitError : public Error {
 public:
  explicit RegexLimitError(const std::string& message)
      : Error(ErrorCode::kResourceExhausted, kExitBadData, message) {}
};

struct BoundedRegexOptions {
  bool ignore_case = false;
  /// Backtracking steps of one attempt at one start position. The same on every machine, unlike a
  /// clock, so that a pattern that explodes fails alike everywhere.
  uint32_t match_limit = 1'000'000;
  uint32_t heap_limit_kib = 64 * 1024;
};

/// A regular expression (PCRE2 syntax, UTF-8, Unicode classes) whose search always ends: steps and
/// memory are bounded, and the deadline is asked within the backtracking. Uses no stack per step.
/// Immutable; any thread.
class BoundedRegex {
 public:
  /// @throws InvalidArgument "missing closing parenthesis at byte 2 of \"(a\""
  explicit BoundedRegex(std::string_view pattern, BoundedRegexOptions options = {});
  ~BoundedRegex();
  BoundedRegex(BoundedRegex&&) noexcept;
  BoundedRegex& operator=(BoundedRegex&&) noexcept;

  struct Match {
    size_t begin = 0;  ///< bytes
    size_t end = 0;
    std::vector<std::optional<std::string_view>>
        groups;  ///< group 1 first; views into the text searched
  };
  /// The first match that begins at or after byte `from`, which must be the start of a character.
  /// @throws TimeoutError; RegexLimitError; DataError when the text is not UTF-8
  std::optional<Match> search(std::string_view text, size_t from, const Deadline& deadline) const;
  std::optional<Match> search(std::string_view text, const Deadline& deadline) const {
    return search(text, 0, deadline);
  }

  /// `text` with every character that means something in a pattern escaped.
  static std::string quote(std::string_view text);

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace praetor
