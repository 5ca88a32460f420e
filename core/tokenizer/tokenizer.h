#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace praetor {

class ModelChat;

/// Text to token ids and back, equal to Hugging Face's for the folder it was loaded from.
/// Immutable; any thread.
class Tokenizer {
 public:
  /// One decode that grows token by token; StreamDecoder is its user. Owned by one thread at a
  /// time.
  class Decoding {
   public:
    virtual ~Decoding() = default;
    virtual std::string push(
        int64_t token) = 0;            ///< text that no later token can change, maybe empty
    virtual std::string finish() = 0;  ///< the rest
  };

  virtual ~Tokenizer() = default;
  /// Reads DIR/tokenizer.json (byte-level BPE; Llama-style BPE with byte fallback; Unigram), else
  /// DIR/tokenizer.model (SentencePiece), with tokenizer_config.json and special_tokens_map.json
  /// for the special tokens' roles.
  /// @throws MissingInput; DataError naming the file, and the feature that is not supported.
  static std::unique_ptr<Tokenizer> load(const std::filesystem::path& folder);

  /// `add_special`: what the post-processor adds (BOS for Llama). Special tokens written in the
  /// text are matched either way, as Hugging Face does; the length limits a tokenizer.json may hold
  /// (truncation, padding) are not applied. @throws DataError when `text` is not UTF-8.
  virtual std::vector<int64_t> encode(std::string_view text, bool add_special = true) const = 0;
  /// Bytes of a run of tokens as text; broken UTF-8 becomes U+FFFD as Hugging Face does. Ids that
  /// are no token (a padded embedding has some) give nothing; `clean_up_tokenization_spaces` is not
  /// applied.
  virtual std::string decode(std::span<const int64_t> tokens, bool skip_special = true) const = 0;
  virtual int64_t vocab_size() const = 0;  ///< highest id + 1, added tokens included
  virtual std::optional<int64_t> token_to_id(std::string_view token) const = 0;
  virtual std::optional<std::string> id_to_token(int64_t id) const = 0;
  virtual bool is_special(int64_t id) const = 0;
  /// The bytes that a token adds to a decoded text, special tokens left out; a byte-level token may
  /// hold a part of a character. The bytes of a run of tokens, joined, are decode of the run
  /// wherever they are UTF-8. Empty: it adds nothing. The default decodes the token by itself.
  /// @param first  the token is the first of the text that adds anything (SentencePiece takes a
  ///               leading space off it)
  virtual std::string token_bytes(int64_t id, bool first) const;
  /// Starts a decode of tokens that are still to come; the tokenizer is borrowed. The default
  /// returns all text at the end.
  virtual std::unique_ptr<Decoding> start_decode(bool skip_special) const;

  /// The chat template of the folder; null when it has none.
  const ModelChat* chat() const { return chat_.get(); }

  std::optional<int64_t> bos() const { return bos_; }
  std::optional<int64_t> eos() const { return eos_; }
  std::optional<int64_t> pad() const { return pad_; }

 protected:
  std::optional<int64_t> bos_, eos_, pad_;
  std::shared_ptr<const ModelChat> chat_;
};

/// Decodes a growing response piece by piece; what it returns, joined, equals decode of the whole,
/// and no piece ends within a UTF-8 character. Each token is looked at once. A run of byte-fallback
/// tokens is held back until it ends, because Hugging Face turns the whole run into U+FFFD when one
/// byte of it is wrong. The tokenizer is borrowed.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : decoding_(tokenizer.start_decode(skip_special)) {}
  std::string push(int64_t token) {
    return decoding_->push(token);
  }                                                     ///< text that is certain now, maybe empty
  std::string finish() { return decoding_->finish(); }  ///< the rest

 private:
  std::unique_ptr<Tokenizer::Decoding> decoding_;
};

struct Message {
  std::string role;  ///< system, user, assistant
  std::string content;
};

/// Renders a conversation to text by a named template: plain, chatml, llama3, or model.
/// `add_generation_prompt` opens the assistant's turn. Roles are system, user and assistant.
///   plain   contents joined by newlines, no markers; the generation prompt is a newline
///   chatml  <|im_start|>role\ncontent<|im_end|>\n
///   llama3  <|begin_of_text|>, then <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>,
///   content trimmed
///   model   the template that the tokenizer's folder carries
/// llama3's text begins with BOS already: encode it with add_special = false, or BOS stands twice
/// (prompt_tokens of core/data/example.h sees to it).
/// @throws InvalidArgument naming the template and the known ones, or the role that the template
/// lacks, or the model that carries none; DataError of a model's own template.
std::string render_chat(const Tokenizer& tokenizer,
                        const std::string& template_name,
                        std::span<const Message> messages,
                        bool add_generation_prompt);
/// The known names, for messages and validation.
const std::vector<std::string>& chat_template_names();

}  // namespace praetor
