#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace praetor {

/// The `model` of a tokenizer.json: ids of the words that the pre-tokenizer cuts. Immutable; any
/// thread.
class WordModel {
 public:
  virtual ~WordModel() = default;
  /// Appends the ids of one word (well-formed UTF-8).
  virtual void encode_word(std::string_view word, std::vector<int64_t>& out) const = 0;
};

}  // namespace praetor
