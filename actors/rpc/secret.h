#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace praetor {

/// The run's secret: 256 random bits as 64 hexadecimal digits. Who can read RUN_DIR/secret is a
/// member of the run; it travels in the metadata of every call and is never logged.

/// RUN_DIR/secret
std::filesystem::path secret_file(const std::filesystem::path& run_dir);

/// Makes the secret of a run in a file that its owner alone may read, durable when it returns. A
/// secret that is there already stays, and is returned. @throws IoError; RefusedError as
/// `read_secret`
std::string make_secret(const std::filesystem::path& run_dir);

/// @throws MissingInput; RefusedError for a file that others may read or write, or that belongs to
/// another user, naming the chmod that mends it; DataError when it holds no secret
std::string read_secret(const std::filesystem::path& run_dir);

/// Equality in a time that does not depend on where the two differ.
bool same_secret(std::string_view left, std::string_view right);

}  // namespace praetor
