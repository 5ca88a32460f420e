#pragma once

#include <filesystem>
#include <string>

namespace praetor::log {

enum class Level { kDebug, kInfo, kWarning, kError };

/// Words for people go to stderr, and to `file` when one is set. Safe from any thread.
void write(Level level, const std::string& message);
inline void debug(const std::string& message) {
  write(Level::kDebug, message);
}
inline void info(const std::string& message) {
  write(Level::kInfo, message);
}
inline void warn(const std::string& message) {
  write(Level::kWarning, message);
}
inline void error(const std::string& message) {
  write(Level::kError, message);
}

/// Lines below `level` are dropped (default: info).
void set_level(Level level);
/// Copies every line to `file` (appended, with time stamps) from now on.
void add_file(const std::filesystem::path& file);
/// Lines to stderr on or off; the file is not touched. For commands that draw their own progress.
void set_stderr(bool on);

}  // namespace praetor::log
