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

/// Text to token ids and back, equal to Hugging Face's for the folder it was loaded from. Immutable; any thread.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  /// Reads DIR/tokenizer.json (byte-level BPE; Llama-style BPE with byte fallback), else DIR/tokenizer.model
  /// (SentencePiece), with tokenizer_config.json and special_tokens_map.json for the special tokens' roles.
  /// @throws MissingInput; DataError naming the file, and the feature that is not supported.
  static std::unique_ptr<Tokenizer> load(const std::filesystem::path& folder);

  /// `add_special`: what the post-processor adds (BOS for Llama), and special tokens written in the text are matched.
  virtual std::vector<int64_t> encode(std::string_view text, bool add_special = true) const = 0;
  /// Bytes of a run of tokens as text; broken UTF-8 becomes U+FFFD as Hugging Face does.
  virtual std::string decode(std::span<const int64_t> tokens, bool skip_special = true) const = 0;
  virtual int64_t vocab_size() const = 0;  ///< highest id + 1, added tokens included
  virtual std::optional<int64_t> token_to_id(std::string_view token) const = 0;
  virtual std::optional<std::string> id_to_token(int64_t id) const = 0;
  virtual bool is_special(int64_t id) const = 0;

  std::optional<int64_t> bos() const { return bos_; }
  std::optional<int64_t> eos() const { return eos_; }
  std::optional<int64_t> pad() const { return pad_; }

 protected:
  std::optional<int64_t> bos_, eos_, pad_;
};

/// Decodes a growing response piece by piece; what it returns, joined, equals decode of the whole, and no piece ends
/// within a UTF-8 character. The tokenizer is borrowed.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  std::string push(int64_t token);  ///< text that is certain now, maybe empty
  std::string finish();             ///< the rest

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  std::vector<int64_t> tokens_;
  size_t prefix_ = 0;   ///< tokens before this index are settled context
  size_t read_ = 0;     ///< tokens before this index have been returned as text
  std::string returned_;
};

struct Message {
  std::string role;     ///< system, user, assistant
  std::string content;
};

/// Renders a conversation to text by a named template: plain, chatml, llama3. @throws ConfigError-free: InvalidArgument
/// naming the template and the known ones, or a role that the template lacks.
/// plain: contents joined by newlines, no markers. `add_generation_prompt` opens the assistant's turn.
std::string render_chat(const std::string& template_name, std::span<const Message> messages, bool add_generation_prompt);
/// The known names, for messages and validation.
const std::vector<std::string>& chat_template_names();

}  // namespace praetor
