#pragma once

#include <cstdint>
#include <filesystem>

namespace praetor {

/// Passes on what is appended to a log file from now on, whole lines, to stderr.
class LogFollower {
 public:
  explicit LogFollower(std::filesystem::path file);
  void pass_on();

 private:
  std::filesystem::path file_;
  int64_t offset_ = 0;
};

}  // namespace praetor
