#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tokenizer/json_view.h"
#include "core/tokenizer/vocabulary.h"
#include "core/tokenizer/word_model.h"

namespace praetor {

/// Unigram language model (arXiv:1804.10959) as the `Unigram` model of a tokenizer.json: of all
/// ways to spell a word by tokens the one with the greatest sum of scores, found by Viterbi's
/// search.
///
/// A character that no token spells alone costs the lowest score of all less 10; neighbours of that
/// kind become one unknown token, or their bytes' tokens (`byte_fallback`, when all of them are in
/// the vocabulary). Sums are float64 and of equal ones the first found stays, as in Hugging Face.
class Unigram final : public WordModel {
 public:
  /// Reads `model`, and its tokens into `vocabulary`, which is borrowed. @throws DataError naming
  /// the key: a vocabulary that is not [token, score] pairs, an unk_id that is missing or no token
  Unigram(const JsonView& model, Vocabulary& vocabulary);

  /// O(n l) for n bytes and tokens of l bytes at most.
  void encode_word(std::string_view word, std::vector<int64_t>& out) const override;

 private:
  struct Entry {
    std::string_view token;
    int32_t id;
  };
  /// The best spelling of the bytes before a place: its last token begins at `begin` (-1: no
  /// spelling yet).
  struct Node {
    double score = 0;
    int64_t begin = -1;
    int32_t id = 0;
  };
  void read_vocabulary(const JsonView& vocab);
  void spell_unknown(std::string_view text, std::vector<int64_t>& out) const;

  Vocabulary& vocabulary_;
  std::vector<double> scores_;  ///< by id
  std::vector<Entry> sorted_;   ///< by token's bytes, so that those with one prefix stand together
  std::array<int32_t, 256> byte_tokens_{};  ///< of <0xHH>, or -1
  double unknown_score_ = 0;
  int32_t unknown_ = 0;
  bool byte_fallback_ = false;
};

}  // namespace praetor
