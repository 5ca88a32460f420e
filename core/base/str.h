#pragma once

#include <sstream>
#include <string>

namespace praetor {

/// Joins its arguments with operator<<: str("rank ", 3, ": timed out").
template <typename... Args>
std::string str(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

}  // namespace praetor
