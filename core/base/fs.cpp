#include "core/base/fs.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/base/error.h"
#include "core/base/file_layer.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

std::string reason() {
  return std::strerror(errno);
}

/// Owns a file descriptor.
struct Descriptor {
  explicit Descriptor(int handle) : fd(handle) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd;
};

int open_for_reading(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) throw MissingInput(file.string(), ": no such file");
    throw IoError("cannot open ", file.string(), ": ", reason());
  }
  struct stat info {};
  if (::fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
    ::close(fd);
    throw MissingInput(file.string(), ": is a folder, a file is wanted");
  }
  return fd;
}

}  // namespace

std::string read_file(const fs::path& file, size_t max_bytes) {
  const Descriptor handle(open_for_reading(file));
  std::string out;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t got = ::read(handle.fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw IoError("cannot read ", file.string(), ": ", reason());
    if (got == 0) return out;
    if (out.size() + static_cast<size_t>(got) > max_bytes) {
      throw DataError(
          file.string(), ": larger than the ", max_bytes, " bytes that are allowed for it");
    }
    out.append(buffer, static_cast<size_t>(got));
  }
}

void write_file_atomic(const fs::path& file, std::string_view bytes) {
  PendingFile out(file);
  out.append(bytes.data(), bytes.size());
  out.commit();
}

void fsync_directory(const fs::path& folder) {
  if (file_layer().sync_folder(folder) != 0)
    throw IoError("cannot sync ", folder.string(), ": ", reason());
}

void fsync_file(const fs::path& file) {
  const Descriptor handle(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (handle.fd < 0 || ::fsync(handle.fd) != 0)
    throw IoError("cannot sync ", file.string(), ": ", reason());
}

MappedFile::MappedFile(const fs::path& file) {
  const Descriptor handle(open_for_reading(file));
  struct stat info {};
  if (::fstat(handle.fd, &info) != 0) throw IoError("cannot stat ", file.string(), ": ", reason());
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;
  void* at = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, handle.fd, 0);
  if (at == MAP_FAILED) throw IoError("cannot map ", file.string(), ": ", reason());
  data_ = static_cast<const std::byte*>(at);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace praetor
