#pragma once

#include <ctime>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "core/tokenizer/jinja/template.h"
#include "core/tokenizer/special_tokens.h"

namespace praetor {

struct Message;

/// The chat template that a model folder carries: chat_template.jinja, else "chat_template" of
/// tokenizer_config.json (of several the one named "default"). Immutable; any thread.
class ModelChat {
 public:
  /// Null when the folder has none. A template that is not understood is complained about when it
  /// is used. @throws IoError
  /// @param special  of the same folder
  static std::shared_ptr<const ModelChat> load(const std::filesystem::path& folder,
                                               const SpecialTokens& special);

  /// As transformers' apply_chat_template without tools and documents.
  /// @param now  see jinja::Template; without it templates fall back to the date they name
  ///             themselves, so that the same rows give the same text on every day
  /// @throws DataError naming the file and line
  jinja::Template::Rendered render(std::span<const Message> messages,
                                   bool add_generation_prompt,
                                   std::optional<std::tm> now = std::nullopt) const;

 private:
  std::optional<jinja::Template> template_;
  std::string complaint_;             ///< without a template
  nlohmann::ordered_json variables_;  ///< bos_token and its kin
};

}  // namespace praetor
