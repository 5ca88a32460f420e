#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace praetor {

/// Whole content of a file. @throws MissingInput when there is none, IoError when it cannot be
/// read, DataError when it is larger than `max_bytes`.
std::string read_file(const std::filesystem::path& file, size_t max_bytes = size_t{1} << 31);

/// Replaces `file` by `bytes` so that a reader, or a power cut, finds the old or the new content,
/// never a part: temporary file in the same folder, fsync, rename, fsync of the folder. @throws
/// IoError
void write_file_atomic(const std::filesystem::path& file, std::string_view bytes);

/// Makes the entries of a folder durable. @throws IoError
void fsync_directory(const std::filesystem::path& folder);
/// Makes a file's content durable. @throws IoError
void fsync_file(const std::filesystem::path& file);

/// A whole file mapped read-only. Movable; the bytes live as long as the object.
class MappedFile {
 public:
  /// @throws MissingInput, IoError
  explicit MappedFile(const std::filesystem::path& file);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace praetor
