#include "actors/train/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/base/error.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

fs::path numbered(const fs::path& output, const std::string& name, int number) {
  return output / (number == 1 ? name : str(name, "-", number));
}

}  // namespace

RunDirectory::RunDirectory(fs::path path) : path_(std::move(path)) {
  lock_ = ::open((path_ / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0)
    throw IoError("cannot write to the run directory ", path_.string(), ": ", std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(std::exchange(lock_, -1));
    throw TemporaryError(path_.string(),
                         " is in use by another praetor process; wait for it or end it first");
  }
}

RunDirectory::RunDirectory(RunDirectory&& other) noexcept
    : path_(std::move(other.path_)), lock_(std::exchange(other.lock_, -1)) {}

RunDirectory::~RunDirectory() {
  if (lock_ >= 0) ::close(lock_);
}

RunDirectory RunDirectory::create(const fs::path& output, const std::string& name) {
  std::error_code failure;
  fs::create_directories(output, failure);
  if (failure) throw IoError("cannot make the folder ", output.string(), ": ", failure.message());
  for (int number = 1;; ++number) {
    const fs::path path = numbered(output, name, number);
    // Making the folder decides who owns the name, should two runs start at once.
    if (::mkdir(path.c_str(), 0755) == 0) {
      for (const char* part :
           {"rollouts", "tensorboard", "samples", "logs", "stages", "checkpoints"}) {
        fs::create_directory(path / part);
      }
      return RunDirectory(path);
    }
    if (errno != EEXIST)
      throw IoError("cannot make the run directory ", path.string(), ": ", std::strerror(errno));
  }
}

fs::path RunDirectory::next(const fs::path& output, const std::string& name) {
  int number = 1;
  while (fs::exists(numbered(output, name, number))) ++number;
  return numbered(output, name, number);
}

RunDirectory RunDirectory::open(const fs::path& folder) {
  if (!fs::exists(folder / "resolved.yaml")) {
    throw MissingInput(folder.string(), ": not a run directory (it has no resolved.yaml)");
  }
  return RunDirectory(folder);
}

std::optional<fs::path> RunDirectory::newest(const fs::path& output, const std::string& name) {
  std::optional<fs::path> found;
  for (int number = 1; fs::exists(numbered(output, name, number)); ++number) {
    if (fs::exists(numbered(output, name, number) / "resolved.yaml"))
      found = numbered(output, name, number);
  }
  return found;
}

}  // namespace praetor
