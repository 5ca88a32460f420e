#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace praetor {

/// The system calls by which files come to be that must survive a power cut: everything that
/// checkpoints, Hugging Face folders and write_file_atomic do to a disk goes through one object, so
/// that a test can write the calls down and replay any beginning of them with what was not synced
/// lost (tests/support/power_cut.h). Results and errno are those of the call. Any thread.
class FileLayer {
 public:
  virtual ~FileLayer() = default;
  /// open(O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644): the descriptor, or -1.
  virtual int create(const std::filesystem::path& file) = 0;
  virtual ssize_t write_at(int fd, const void* bytes, size_t size, uint64_t at) = 0;
  virtual int sync(int fd) = 0;  ///< fsync
  virtual int close(int fd) = 0;
  virtual int sync_folder(const std::filesystem::path& folder) = 0;
  virtual int make_folder(const std::filesystem::path& folder) = 0;  ///< mkdir
  virtual int link(const std::filesystem::path& target,
                   const std::filesystem::path& name) = 0;  ///< symlink
  virtual int rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  /// renameat2(RENAME_EXCHANGE)
  virtual int exchange(const std::filesystem::path& one, const std::filesystem::path& other) = 0;
  virtual int remove_file(const std::filesystem::path& file) = 0;      ///< unlink
  virtual int remove_folder(const std::filesystem::path& folder) = 0;  ///< rmdir
};

/// The operating system's.
FileLayer& posix_files();
/// The one in use: posix_files(), unless a test put another in its place.
FileLayer& file_layer();

/// Puts `layer` (borrowed) in place of the operating system's for as long as it lives; for tests,
/// one at a time.
class ScopedFileLayer {
 public:
  explicit ScopedFileLayer(FileLayer& layer);
  ~ScopedFileLayer();
  ScopedFileLayer(const ScopedFileLayer&) = delete;
  ScopedFileLayer& operator=(const ScopedFileLayer&) = delete;
};

/// Makes a folder and those above it that are missing, each durable in the one that holds it.
/// @throws IoError
void make_durable_folder(const std::filesystem::path& folder);
/// Removes a file, a link, or a folder with everything in it; nothing when there is none.
/// @throws IoError
void remove_tree(const std::filesystem::path& path);

/// A file in the making beside the wanted one: renamed to it by commit(), else removed.
class PendingFile {
 public:
  /// @throws IoError, as all below
  explicit PendingFile(const std::filesystem::path& file);
  ~PendingFile();
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  void append(const void* bytes, size_t size);
  /// Any thread, for places that do not overlap.
  void put(const void* bytes, size_t size, uint64_t at);
  /// Syncs, renames, syncs the folder: a reader or a power cut finds the old file or the new one.
  void commit();

 private:
  [[noreturn]] void fail(const char* verb) const;

  std::filesystem::path file_;
  std::filesystem::path temporary_;
  int fd_ = -1;
  uint64_t end_ = 0;
  bool committed_ = false;
};

}  // namespace praetor
