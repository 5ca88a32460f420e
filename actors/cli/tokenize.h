#pragma once

#include <iosfwd>

#include "core/tokenizer/tokenizer.h"

namespace praetor::cli {

struct TokenizeOptions {
  bool decode = false;  ///< tokens to text
  bool special = true;  ///< encode: what the post-processor adds; decode: special tokens shown
};

/// JSON lines to JSON lines: a string or {"text": ...} gives {"tokens": [...]}; with `decode`,
/// {"tokens": [...]} gives
/// {"text": ...}. One line out for every line in. @throws DataError "stdin:LINE: ..." at the first
/// bad row, after the rows before it were written; IoError when `out` takes no more.
void tokenize_lines(const Tokenizer& tokenizer,
                    const TokenizeOptions& options,
                    std::istream& in,
                    std::ostream& out);

}  // namespace praetor::cli
