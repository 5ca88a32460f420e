#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace praetor {

/// Parses a JSON file of a model folder. Refuses repeated keys, nesting deeper than 64 and files
/// above `max_bytes`.
/// @throws MissingInput, IoError; DataError naming the file and the place.
nlohmann::json read_json_file(const std::filesystem::path& file,
                              size_t max_bytes = size_t{100} << 20);

}  // namespace praetor
