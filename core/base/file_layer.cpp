#include "core/base/file_layer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/base/error.h"
#include "core/base/fs.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

class PosixFiles final : public FileLayer {
 public:
  int create(const fs::path& file) override {
    return ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  }
  ssize_t write_at(int fd, const void* bytes, size_t size, uint64_t at) override {
    return ::pwrite(fd, bytes, size, static_cast<off_t>(at));
  }
  int sync(int fd) override { return ::fsync(fd); }
  int close(int fd) override { return ::close(fd); }
  int sync_folder(const fs::path& folder) override {
    const int fd = ::open(folder.c_str(), O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    const int result = ::fsync(fd);
    const int why = errno;
    ::close(fd);
    errno = why;
    return result;
  }
  int make_folder(const fs::path& folder) override { return ::mkdir(folder.c_str(), 0777); }
  int link(const fs::path& target, const fs::path& name) override {
    return ::symlink(target.c_str(), name.c_str());
  }
  int rename(const fs::path& from, const fs::path& to) override {
    return ::rename(from.c_str(), to.c_str());
  }
  int exchange(const fs::path& one, const fs::path& other) override {
    return ::renameat2(AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE);
  }
  int remove_file(const fs::path& file) override { return ::unlink(file.c_str()); }
  int remove_folder(const fs::path& folder) override { return ::rmdir(folder.c_str()); }
};

std::atomic<FileLayer*> replaced = nullptr;

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace

FileLayer& posix_files() {
  static PosixFiles files;
  return files;
}

FileLayer& file_layer() {
  FileLayer* const other = replaced.load();
  return other ? *other : posix_files();
}

ScopedFileLayer::ScopedFileLayer(FileLayer& layer) {
  PRAETOR_CHECK(replaced.exchange(&layer) == nullptr, "one file layer at a time");
}

ScopedFileLayer::~ScopedFileLayer() {
  replaced = nullptr;
}

void make_durable_folder(const fs::path& folder) {
  std::error_code ignored;
  if (folder.empty() || fs::is_directory(folder, ignored)) return;
  if (!folder.has_filename()) return make_durable_folder(folder.parent_path());  // "a/b/"
  make_durable_folder(folder.parent_path());
  if (file_layer().make_folder(folder) != 0 && errno != EEXIST) {
    throw IoError("cannot make the folder ", folder.string(), ": ", std::strerror(errno));
  }
  fsync_directory(folder_of(folder));
}

void remove_tree(const fs::path& path) {
  std::error_code failure;
  const fs::file_status status = fs::symlink_status(path, failure);
  if (status.type() == fs::file_type::not_found) return;
  const bool folder = fs::is_directory(status);
  if (folder) {
    std::vector<fs::path> inside;
    for (fs::directory_iterator at(path, failure), end; !failure && at != end;
         at.increment(failure)) {
      inside.push_back(at->path());
    }
    if (failure) throw IoError("cannot list ", path.string(), ": ", failure.message());
    std::sort(inside.begin(), inside.end());
    for (const fs::path& one : inside) remove_tree(one);
  }
  const int result = folder ? file_layer().remove_folder(path) : file_layer().remove_file(path);
  if (result != 0 && errno != ENOENT) {
    throw IoError("cannot remove ", path.string(), ": ", std::strerror(errno));
  }
}

PendingFile::PendingFile(const fs::path& file) : file_(file), temporary_(file) {
  temporary_ += str(".tmp.", ::getpid());
  fd_ = file_layer().create(temporary_);
  if (fd_ < 0) fail("write");
}

PendingFile::~PendingFile() {
  if (fd_ >= 0) file_layer().close(fd_);
  if (!committed_) file_layer().remove_file(temporary_);
}

void PendingFile::append(const void* bytes, size_t size) {
  put(bytes, size, end_);
  end_ += size;
}

void PendingFile::put(const void* bytes, size_t size, uint64_t at) {
  const char* from = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t done = file_layer().write_at(fd_, from, std::min(size, size_t{1} << 30), at);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail("write");
    from += done;
    at += static_cast<uint64_t>(done);
    size -= static_cast<size_t>(done);
  }
}

void PendingFile::commit() {
  if (file_layer().sync(fd_) != 0) fail("sync");
  if (file_layer().rename(temporary_, file_) != 0) {
    throw IoError(
        "cannot rename ", temporary_.string(), " to ", file_.string(), ": ", std::strerror(errno));
  }
  committed_ = true;
  fsync_directory(folder_of(file_));
}

void PendingFile::fail(const char* verb) const {
  throw IoError("cannot ", verb, " ", file_.string(), ": ", std::strerror(errno));
}

}  // namespace praetor
