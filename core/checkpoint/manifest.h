#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/checkpoint/checkpoint.h"

namespace praetor {

constexpr const char* kManifestName = "manifest.json";
constexpr const char* kStateName = "state.json";

/// The manifest as JSON text, which ends with the SHA-256 of itself without that entry.
std::string manifest_to_json(const CheckpointManifest& manifest);
/// @throws CheckpointError naming `file` for text that is not a manifest of ours, or was edited
CheckpointManifest manifest_from_json(std::string_view text, const std::filesystem::path& file);

/// True for a name that stays within its folder: letters, digits and "._-", not starting with a
/// dot.
bool is_plain_name(std::string_view name);

/// Size and SHA-256 of a file. @throws MissingInput, IoError
CheckpointFile describe_file(const std::filesystem::path& file);

}  // namespace praetor
