#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/tokenizer/json_view.h"
#include "core/tokenizer/vocabulary.h"
#include "core/tokenizer/word_model.h"

namespace praetor {

/// Byte-pair encoding (arXiv:1508.07909) as the `BPE` model of a tokenizer.json. Borrows the
/// vocabulary.
class Bpe final : public WordModel {
 public:
  /// Reads `model`, and its tokens into `vocabulary`. @throws DataError naming the key and the
  /// feature that is not supported: dropout, affixes; merges that name unknown
  /// tokens.
  Bpe(const JsonView& model, Vocabulary& vocabulary);

  /// Appends the ids of one word. A character that is no token becomes its bytes' tokens
  /// (`byte_fallback`), else the unknown token (a run of them one token with `fuse_unk`), else
  /// nothing. O(n log n) for n characters.
  void encode_word(std::string_view word, std::vector<int64_t>& out) const override;

  const std::optional<std::string>& unknown_token() const { return unknown_token_; }

 private:
  struct Merge {
    int32_t rank;
    int32_t made;
  };
  static uint64_t pair_key(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) |
           static_cast<uint32_t>(right);
  }
  void read_vocabulary(const JsonView& vocab);
  void read_merges(const JsonView& merges);
  void initial_symbols(std::string_view word, std::vector<int32_t>& symbols) const;
  void merge_all(std::vector<int32_t>& symbols) const;

  Vocabulary& vocabulary_;
  std::unordered_map<uint64_t, Merge> merges_;
  std::array<int32_t, 256> byte_tokens_;  ///< of <0xHH>, or -1
  std::optional<std::string> unknown_token_;
  int32_t unknown_ = -1;
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
};

}  // namespace praetor
