#include "actors/roles/log_follower.h"

#include <cstdio>
#include <fstream>
#include <string>
#include <utility>

namespace praetor {

LogFollower::LogFollower(std::filesystem::path file) : file_(std::move(file)) {
  std::error_code failure;
  const auto size = std::filesystem::file_size(file_, failure);
  if (!failure) offset_ = static_cast<int64_t>(size);
}

void LogFollower::pass_on() {
  std::ifstream in(file_, std::ios::binary);
  if (!in.seekg(offset_)) return;
  std::string text((std::istreambuf_iterator<char>(in)), {});
  const size_t whole = text.rfind('\n');
  if (whole == std::string::npos) return;
  text.resize(whole + 1);
  offset_ += static_cast<int64_t>(text.size());
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace praetor
