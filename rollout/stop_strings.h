#pragma once

#include <span>
#include <string>
#include <string_view>

namespace praetor {

/// Looks for stop strings in text that grows piece by piece, wherever the pieces are cut. The
/// strings are borrowed.
class StopStrings {
 public:
  explicit StopStrings(std::span<const std::string> stops);
  /// Appends `piece`. True when a stop string is complete: the text is then cut before it (before
  /// the one that starts first, when several are) and takes no more pieces.
  bool push(std::string_view piece);
  bool any() const { return !stops_.empty(); }
  const std::string& text() const { return text_; }
  /// Leading bytes of the text that no later piece can cut: all but what may become a stop string.
  size_t certain() const;

 private:
  std::span<const std::string> stops_;
  size_t longest_ = 0;
  std::string text_;
};

}  // namespace praetor
