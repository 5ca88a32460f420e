#include "actors/roles/folder_watch.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "core/base/str.h"

namespace praetor {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

struct FolderWatch::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<steady_clock::time_point> began;  ///< of the attempt under way
  bool over = false;
};

FolderWatch::FolderWatch(std::filesystem::path folder, milliseconds every, milliseconds patience)
    : folder_(std::move(folder)), patience_(patience), shared_(std::make_shared<Shared>()) {
  std::thread([shared = shared_, folder = folder_, every] {
    std::unique_lock lock(shared->mutex);
    while (!shared->over) {
      shared->began = steady_clock::now();
      lock.unlock();
      ::utimensat(AT_FDCWD, folder.c_str(), nullptr, 0);  // whatever it says, it has answered
      lock.lock();
      shared->began.reset();
      shared->changed.wait_for(lock, every, [&] { return shared->over; });
    }
  }).detach();
}

FolderWatch::~FolderWatch() {
  const std::lock_guard lock(shared_->mutex);
  shared_->over = true;
  shared_->changed.notify_all();
}

std::optional<std::string> FolderWatch::news() {
  const std::lock_guard lock(shared_->mutex);
  const auto now = steady_clock::now();
  const auto seconds = [&](steady_clock::time_point since) {
    return std::chrono::duration_cast<std::chrono::seconds>(now - since).count();
  };
  if (!told_ && shared_->began && now - *shared_->began > patience_) {
    told_ = shared_->began;
    return str(folder_.string(),
               ": its file system has not answered for ",
               seconds(*told_),
               " s; what is recorded is safe, and the run goes on once it answers");
  }
  if (told_ && shared_->began != told_) {
    return str(folder_.string(),
               ": its file system answers again, after ",
               seconds(*std::exchange(told_, std::nullopt)),
               " s");
  }
  return std::nullopt;
}

}  // namespace praetor
