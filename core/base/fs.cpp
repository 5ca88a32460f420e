#include "core/base/fs.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/base/error.h"

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

void fsync_path(const fs::path& path, int flags) {
  const Descriptor handle(::open(path.c_str(), flags | O_RDONLY | O_CLOEXEC));
  if (handle.fd < 0 || ::fsync(handle.fd) != 0)
    throw IoError("cannot sync ", path.string(), ": ", reason());
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
  fs::path temporary = file;
  temporary += str(".tmp.", ::getpid());
  {
    const Descriptor handle(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (handle.fd < 0) throw IoError("cannot write ", temporary.string(), ": ", reason());
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t put = ::write(handle.fd, bytes.data() + done, bytes.size() - done);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) {
        const std::string why = reason();
        ::unlink(temporary.c_str());
        throw IoError("cannot write ", file.string(), ": ", why);
      }
      done += static_cast<size_t>(put);
    }
    if (::fsync(handle.fd) != 0) throw IoError("cannot sync ", temporary.string(), ": ", reason());
  }
  if (::rename(temporary.c_str(), file.c_str()) != 0) {
    throw IoError("cannot rename ", temporary.string(), " to ", file.string(), ": ", reason());
  }
  fsync_directory(file.has_parent_path() ? file.parent_path() : fs::path("."));
}

void fsync_directory(const fs::path& folder) {
  fsync_path(folder, O_DIRECTORY);
}

void fsync_file(const fs::path& file) {
  fsync_path(file, 0);
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
