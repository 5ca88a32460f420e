#include "core/metrics/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/base/error.h"

namespace praetor {

AppendFile::AppendFile(const std::filesystem::path& file) : path_(file) {
  fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  struct stat info {};
  if (fd_ < 0 || ::fstat(fd_, &info) != 0) {
    const std::string why = std::strerror(errno);
    if (fd_ >= 0) ::close(fd_);
    throw IoError("cannot open ", file.string(), ": ", why);
  }
  size_ = info.st_size;
}

AppendFile::~AppendFile() {
  if (fd_ >= 0) ::close(fd_);
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), size_(other.size_), fd_(std::exchange(other.fd_, -1)) {}

void AppendFile::append(std::string_view bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put =
        ::pwrite(fd_, bytes.data() + done, bytes.size() - done, size_ + static_cast<int64_t>(done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) {
      const std::string why = std::strerror(errno);
      // What cannot be cut now is written over by the next piece, or cut at the next opening.
      if (::ftruncate(fd_, size_) != 0) errno = 0;
      throw IoError("cannot write ", path_.string(), ": ", why, "; make room and resume");
    }
    done += static_cast<size_t>(put);
  }
  size_ += static_cast<int64_t>(bytes.size());
}

void AppendFile::cut(int64_t size) {
  PRAETOR_CHECK(size >= 0 && size <= size_, path_.string(), ": cut to ", size);
  if (::ftruncate(fd_, size) != 0) {
    throw IoError("cannot cut ", path_.string(), ": ", std::strerror(errno));
  }
  size_ = size;
}

void AppendFile::sync() {
  if (::fdatasync(fd_) != 0) {
    throw IoError("cannot sync ", path_.string(), ": ", std::strerror(errno));
  }
}

}  // namespace praetor
