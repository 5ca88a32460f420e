#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "core/model/model_config.h"
#include "core/tokenizer/tokenizer.h"

namespace praetor {

/// The tokenizer of a model's folder, once it is clear that the model knows its tokens and has a
/// position for each of `max_length` (0: as many as it has).
/// @throws MissingInput; DataError naming the folder and both numbers
std::unique_ptr<Tokenizer> fitting_tokenizer(const std::filesystem::path& folder,
                                             const ModelConfig& model,
                                             int64_t max_length);

/// Why a text of so many tokens cannot be read: `when_none` for 0, "512 tokens, more than
/// max_length 256"; empty when it can.
std::string length_error(size_t tokens, int64_t max_length, const std::string& when_none);

}  // namespace praetor
