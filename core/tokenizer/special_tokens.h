#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/tokenizer/added_tokens.h"

namespace praetor {

/// A template and where it stands.
struct TemplateText {
  std::string text, place;
};

/// What tokenizer_config.json and special_tokens_map.json say beside the tokenizer; the first wins.
struct SpecialTokens {
  std::filesystem::path source;  ///< of `bos`, `eos`, `pad`, for messages
  std::optional<std::string> bos, eos, pad, unk;
  std::optional<bool> add_bos, add_eos, legacy;
  std::string tokenizer_class;    ///< "" when it is not said; a trailing "Fast" is cut
  std::vector<AddedToken> added;  ///< added_tokens_decoder
  /// "chat_template"; of several the one named "default".
  std::optional<TemplateText> chat_template;

  /// Llama, Code Llama and Gemma: their classes build the post-processor from add_bos_token and
  /// add_eos_token.
  bool class_frames_text() const;
};

/// Both files may be missing. @throws DataError naming the file and the key of a wrong type.
SpecialTokens read_special_tokens(const std::filesystem::path& folder);

}  // namespace praetor
