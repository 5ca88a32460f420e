#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/deadline.h"

namespace praetor {

/// Every run of `n` words of a text whose words are parted by single blanks, in order, as views
/// into it; none when it has fewer words.
std::vector<std::string_view> word_ngrams(std::string_view text, int64_t n);
/// Every run of `n` code points.
std::vector<std::string_view> character_ngrams(std::string_view text, int64_t n);

/// The words of `text` parted by single blanks.
std::string single_spaced(std::string_view text);

/// The n-grams of code points of a text, to be looked up exactly. Takes 8 to 16 bytes of memory for
/// each of the text. Immutable; any thread.
class NgramIndex {
 public:
  /// @throws TimeoutError; DataError for 4 GiB of text or more
  NgramIndex(std::string text, int64_t n, const Deadline& deadline);
  /// `ngram` has n code points.
  bool contains(std::string_view ngram) const;

 private:
  size_t slot_of(std::string_view ngram) const;

  std::string text_;
  /// An open hash table: 0 for none, else 1 + the byte where one of the n-grams begins.
  std::vector<uint32_t> slots_;
};

}  // namespace praetor
