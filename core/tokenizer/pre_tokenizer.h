#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/tokenizer/json_view.h"

namespace praetor {

/// A piece of text on its way to the model.
struct Piece {
  std::string text;
  bool first = false;  ///< begins where the whole text begins
};

/// A step that cuts text into words (`pre_tokenizer` of a tokenizer.json). Immutable; any thread.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  /// Appends the pieces of `piece` to `out`, none empty.
  virtual void cut(const Piece& piece, std::vector<Piece>& out) const = 0;
};

/// ByteLevel, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, Metaspace and Sequence; null
/// for a null. @throws DataError naming any other.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const JsonView& json);

}  // namespace praetor
