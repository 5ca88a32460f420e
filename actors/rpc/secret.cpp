#include "actors/rpc/secret.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "actors/controller/services.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/random_hex.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr size_t kDigits = 64;

bool is_secret(std::string_view text) {
  return text.size() == kDigits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// A file descriptor that closes itself.
struct Descriptor {
  int fd;
  explicit Descriptor(int handle) : fd(handle) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
};

}  // namespace

fs::path secret_file(const fs::path& run_dir) {
  return run_dir / "secret";
}

std::string make_secret(const fs::path& run_dir) {
  const fs::path file = secret_file(run_dir);
  // Written under another name first, so that a file of the right name is always whole; linked, not
  // renamed, so that of two makers one wins and both return the same.
  const fs::path part = run_dir / str(".secret.", ::getpid(), ".", random_hex(4));
  std::string secret = random_hex(kDigits / 2);
  {
    const Descriptor handle(
        ::open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (handle.fd < 0) throw IoError("cannot make ", file.string(), ": ", std::strerror(errno));
    const std::string line = secret + "\n";
    const bool whole =
        ::fchmod(handle.fd, 0600) == 0 &&
        ::write(handle.fd, line.data(), line.size()) == static_cast<ssize_t>(line.size()) &&
        ::fsync(handle.fd) == 0;
    if (!whole) {
      const int why = errno;
      ::unlink(part.c_str());
      throw IoError("cannot write ", file.string(), ": ", std::strerror(why));
    }
  }
  const int linked = ::link(part.c_str(), file.c_str());
  const int why = errno;
  ::unlink(part.c_str());
  if (linked != 0 && why == EEXIST) return read_secret(run_dir);
  if (linked != 0) throw IoError("cannot make ", file.string(), ": ", std::strerror(why));
  fsync_directory(run_dir);
  return secret;
}

std::string read_secret(const fs::path& run_dir) {
  const fs::path file = secret_file(run_dir);
  const Descriptor handle(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (handle.fd < 0 && errno == ENOENT) {
    throw MissingInput(file.string(), ": no such file: the run has no secret yet");
  }
  if (handle.fd < 0 && (errno == EACCES || errno == ELOOP)) {
    throw RefusedError(file.string(),
                       ": cannot be read (",
                       std::strerror(errno),
                       "): you are no member of the run");
  }
  if (handle.fd < 0) throw IoError("cannot open ", file.string(), ": ", std::strerror(errno));
  struct stat info {};
  if (::fstat(handle.fd, &info) != 0)
    throw IoError("cannot examine ", file.string(), ": ", std::strerror(errno));
  if (!S_ISREG(info.st_mode)) throw DataError(file.string(), ": is no plain file");
  if (info.st_uid != ::geteuid() && ::geteuid() != 0) {
    throw RefusedError(file.string(), ": belongs to user ", info.st_uid, ", not to you");
  }
  if ((info.st_mode & 077) != 0) {
    throw RefusedError(
        file.string(), ": others may read or write it; mend it by: chmod 600 ", file.string());
  }
  char buffer[kDigits + 2];
  const ssize_t got = ::read(handle.fd, buffer, sizeof(buffer));
  if (got < 0) throw IoError("cannot read ", file.string(), ": ", std::strerror(errno));
  std::string_view text(buffer, static_cast<size_t>(got));
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  if (!is_secret(text)) {
    throw DataError(file.string(), ": does not hold a secret (", kDigits, " hexadecimal digits)");
  }
  return std::string(text);
}

bool same_secret(std::string_view left, std::string_view right) {
  // Every byte of `right` is looked at, however early the two differ.
  unsigned difference = left.size() == right.size() ? 0 : 1;
  for (size_t i = 0; i < right.size(); ++i) {
    const unsigned char other =
        left.empty() ? 0 : static_cast<unsigned char>(left[i % left.size()]);
    difference |= other ^ static_cast<unsigned char>(right[i]);
  }
  return difference == 0;
}

}  // namespace praetor
