#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

namespace praetor {

/// Parses a JSON file of a model folder. Refuses repeated keys, nesting deeper than 64 and files
/// above `max_bytes`.
/// @throws MissingInput, IoError; DataError naming the file and the place.
nlohmann::json read_json_file(const std::filesystem::path& file,
                              size_t max_bytes = size_t{100} << 20);
/// The same for a text that is in memory; `where` stands in the messages.
nlohmann::json parse_json(std::string_view text, const std::filesystem::path& where);

}  // namespace praetor
