#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace praetor {

/// A file that grows by whole pieces: what `append` adds is there entirely or, when it throws, not
/// at all.
class AppendFile {
 public:
  /// Makes the file when it is missing. @throws IoError
  explicit AppendFile(const std::filesystem::path& file);
  ~AppendFile();
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&&) = delete;

  void append(std::string_view bytes);
  void cut(int64_t size);  ///< drops what stands after `size` bytes
  void sync();
  int64_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int64_t size_ = 0;
  int fd_ = -1;
};

}  // namespace praetor
