#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/tokenizer/added_tokens.h"
#include "core/tokenizer/decoder.h"
#include "core/tokenizer/normalizer.h"
#include "core/tokenizer/special_tokens.h"
#include "core/tokenizer/tokenizer.h"
#include "core/tokenizer/vocabulary.h"

namespace praetor {

/// Turns normalised text without added tokens into ids. Immutable; any thread.
class TextModel {
 public:
  virtual ~TextModel() = default;
  /// Appends ids. `first`: the text begins where the whole text begins.
  virtual void encode(std::string_view text, bool first, std::vector<int64_t>& out) const = 0;
};

/// What a tokenizer is made of; read from tokenizer.json or tokenizer.model.
struct TokenizerParts {
  std::string file;                        ///< for messages
  std::unique_ptr<Vocabulary> vocabulary;  ///< added tokens included; `model` may borrow it
  std::vector<AddedToken> added;
  std::unique_ptr<Normalizer> normalizer;  ///< null for none
  std::unique_ptr<TextModel> model;
  std::unique_ptr<Decoder> decoder;
  std::vector<int64_t> prefix, suffix;  ///< ids put around a text by add_special
  int64_t bos = -1, eos = -1,
          pad = -1;  ///< what the model file says; the config files go first; -1 for none
};

/// Hugging Face's order of work: added tokens in the raw text, the normalizer on each stretch
/// between, added tokens in the normalised text, the model on what is left, the frame of special
/// tokens.
class PipelineTokenizer final : public Tokenizer {
 public:
  /// Roles and further added tokens come from `special`. @throws DataError when a role names a
  /// token that is not there
  PipelineTokenizer(TokenizerParts parts,
                    const SpecialTokens& special,
                    std::shared_ptr<const ModelChat> chat);

  std::vector<int64_t> encode(std::string_view text, bool add_special) const override;
  std::string decode(std::span<const int64_t> tokens, bool skip_special) const override;
  int64_t vocab_size() const override { return parts_.vocabulary->size(); }
  std::optional<int64_t> token_to_id(std::string_view token) const override {
    return parts_.vocabulary->id(token);
  }
  std::optional<std::string> id_to_token(int64_t id) const override;
  bool is_special(int64_t id) const override { return special_.contains(id); }
  std::string token_bytes(int64_t id, bool first) const override;
  std::unique_ptr<Decoding> start_decode(bool skip_special) const override;

 private:
  class StepDecoding;
  void add_tokens(const SpecialTokens& special);
  std::optional<int64_t> find_role(const SpecialTokens& special,
                                   const char* key,
                                   const std::optional<std::string>& token);
  void encode_stretch(std::string_view text, bool first, std::vector<int64_t>& out) const;

  TokenizerParts parts_;
  std::unordered_set<int64_t> special_;
  /// Added tokens that the normalizer spells anew are decoded by that spelling, and then (as
  /// Hugging Face does) not left out as special.
  std::unordered_map<int64_t, std::string> respelled_;
  AddedTokenFinder raw_;
  AddedTokenFinder normalized_;
};

/// Reads a tokenizer.json. @throws DataError, MissingInput
TokenizerParts load_tokenizer_json(const std::filesystem::path& file);
/// Reads a tokenizer.model. @throws DataError, MissingInput
TokenizerParts load_sentencepiece(const std::filesystem::path& file, const SpecialTokens& special);

}  // namespace praetor
