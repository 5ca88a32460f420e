// Published files that are damaged, and what is said of them.
#pragma once
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "core/base/error.h"

namespace praetor::testing {

inline std::string data_error(const std::function<void()>& call) {
  try {
    call();
  } catch (const DataError& failure) {
    return failure.what();
  }
  return "no DataError";
}

inline void replace(const std::filesystem::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
}

inline uint64_t header_end(const std::string& bytes) {
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  return 8 + length;
}

}  // namespace praetor::testing
