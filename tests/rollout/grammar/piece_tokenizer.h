#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace praetor::testing {

/// A tokenizer of given pieces, which may be any bytes; id 0 is special and adds nothing.
class PieceTokenizer final : public Tokenizer {
 public:
  explicit PieceTokenizer(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {
    pieces_.insert(pieces_.begin(), "<end>");
    eos_ = 0;
  }
  /// The longest piece at each place; the text must be made of pieces.
  std::vector<int64_t> encode(std::string_view text, bool) const override {
    std::vector<int64_t> ids;
    while (!text.empty()) {
      int64_t best = 0;
      for (int64_t id = 1; id < vocab_size(); ++id) {
        const std::string& piece = pieces_[static_cast<size_t>(id)];
        const size_t length = best == 0 ? 0 : pieces_[static_cast<size_t>(best)].size();
        if (piece.size() > length && text.starts_with(piece)) best = id;
      }
      if (best == 0) return {};
      ids.push_back(best);
      text.remove_prefix(pieces_[static_cast<size_t>(best)].size());
    }
    return ids;
  }
  std::string decode(std::span<const int64_t> tokens, bool) const override {
    std::string out;
    for (const int64_t id : tokens) out += token_bytes(id, false);
    return out;
  }
  int64_t vocab_size() const override { return static_cast<int64_t>(pieces_.size()); }
  std::optional<int64_t> token_to_id(std::string_view) const override { return std::nullopt; }
  std::optional<std::string> id_to_token(int64_t) const override { return std::nullopt; }
  bool is_special(int64_t id) const override { return id == 0; }
  std::string token_bytes(int64_t id, bool) const override {
    return id > 0 && id < vocab_size() ? pieces_[static_cast<size_t>(id)] : "";
  }

 private:
  std::vector<std::string> pieces_;
};

/// All printable ASCII as single pieces but the capital letters, and some of several characters:
/// 97 ids with the special one.
inline PieceTokenizer json_pieces() {
  std::vector<std::string> pieces;
  for (char c = ' '; c <= '~'; ++c)
    if (c < 'A' || c > 'Z') pieces.emplace_back(1, c);
  for (const char* more :
       {"\n",    "\xC3", "\xA9", "\xE2\x82", "\xAC", "é",   "\": ", "\", \"", "true",
        "false", "null", "{\"",  "\"}",      "[]",   "},",  "12",   "ab",     "abc",
        "a\"",   "\\u",  "\\n",  ", ",       "-1",   "0.5", ":",    "e+1",    "]]"})
    pieces.emplace_back(more);
  return PieceTokenizer(std::move(pieces));
}

}  // namespace praetor::testing
