#include "actors/train/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/base/error.h"
#include "core/base/file_layer.h"
#include "core/base/fs.h"
#include "core/base/random_hex.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

fs::path numbered(const fs::path& output, const std::string& name, int number) {
  return output / (number == 1 ? name : str(name, "-", number));
}

constexpr std::chrono::minutes kMaking{1};  ///< a run directory, at the longest

std::string unborn_prefix(const std::string& name) {
  return "." + name + ".new-";
}

/// What makers that were killed left behind.
void remove_unborn(const fs::path& output, const std::string& name) {
  const std::string prefix = unborn_prefix(name);
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(output, ignored)) {
    if (!entry.path().filename().string().starts_with(prefix)) continue;
    if (entry.last_write_time(ignored) + kMaking < fs::file_time_type::clock::now())
      fs::remove_all(entry.path(), ignored);
  }
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

RunDirectory RunDirectory::create(const fs::path& output,
                                  const std::string& name,
                                  const std::map<std::string, std::string>& files) {
  make_durable_folder(output);
  remove_unborn(output, name);
  // Made under another name: a run directory is whole or absent, whenever its maker is killed.
  const fs::path unborn = output / (unborn_prefix(name) + random_hex(8));
  make_durable_folder(unborn);
  RunDirectory run(unborn);
  for (const char* part : {"rollouts", "tensorboard", "samples", "logs", "stages", "checkpoints"})
    make_durable_folder(unborn / part);
  for (const auto& [file, text] : files) write_file_atomic(unborn / file, text);
  for (int number = 1;; ++number) {
    // The rename decides who owns the name, should two runs start at once.
    run.path_ = numbered(output, name, number);
    if (fs::exists(run.path_)) continue;
    if (file_layer().rename(unborn, run.path_) == 0) {
      // What is to be durable below it needs its name to be.
      fsync_directory(output);
      return run;
    }
    if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR)
      throw IoError(
          "cannot make the run directory ", run.path_.string(), ": ", std::strerror(errno));
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
