#pragma once

#include <filesystem>
#include <string_view>

#include "core/model/model_config.h"

namespace praetor {

/// A ModelConfig from the text of a config.json; `where` stands in the messages.
/// @throws DataError naming `where` and the key
ModelConfig parse_model_config(std::string_view json, const std::filesystem::path& where);

}  // namespace praetor
