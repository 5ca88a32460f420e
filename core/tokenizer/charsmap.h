#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/normalizer.h"

namespace praetor {

/// The `Precompiled` normalizer: SentencePiece's table of replacements (`precompiled_charsmap`), as
/// Hugging Face applies it. Text is taken by grapheme clusters (UAX 29); one of less than 6 bytes
/// is looked up whole, then character by character. A look-up finds the shortest entry that the
/// text begins with, and replaces all of what was looked up: a cluster may so lose its marks, as
/// there.
///
/// The table: its size in bytes (little-endian, 4 bytes), a trie as a double array of 32-bit units
/// whose leaves hold offsets, and the replacements, each ended by a zero byte.
class Charsmap final : public Normalizer {
 public:
  /// @param json  the value of "precompiled_charsmap", base64
  /// @throws DataError naming what is broken
  explicit Charsmap(const JsonView& json);

  std::string apply(std::string_view text) const override;

 private:
  /// Appends the replacement of `text`; false when there is none.
  bool replace(std::string_view text, std::string& out) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace praetor
