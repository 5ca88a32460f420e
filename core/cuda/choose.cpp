#include "core/cuda/choose.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <string>
#include <system_error>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/cuda/library.h"

namespace praetor::cuda {

namespace fs = std::filesystem;

namespace {

/// More processes than anybody has share a GPU.
constexpr int32_t kMostPlaces = 64;
/// The compute capability from which on GPUs multiply bfloat16; the library has no code for others.
constexpr int32_t kLeastMajor = 8;

/// The file, locked; -1 where another process has it, or it cannot be made.
int locked(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return -1;
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  ::close(fd);
  return -1;
}

}  // namespace

int64_t local_number() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"}) {
    if (const char* value = std::getenv(name)) return std::max<int64_t>(0, std::atoll(value));
  }
  return 0;
}

DevicePlace::DevicePlace(const std::vector<DeviceDescription>& devices,
                         int64_t start,
                         const fs::path& folder) {
  const auto count = static_cast<int64_t>(devices.size());
  PRAETOR_CHECK(count > 0, "a place on one of no GPUs");
  for (int32_t earlier = 0; earlier < kMostPlaces; ++earlier) {
    for (int64_t i = 0; i < count; ++i) {
      const auto device = static_cast<int32_t>((start + i) % count);
      lock_ = locked(folder / str("praetor-gpu-",
                                  ::getuid(),
                                  '-',
                                  devices[static_cast<size_t>(device)].id,
                                  '.',
                                  earlier));
      if (lock_ < 0) continue;
      device_ = device;
      earlier_ = earlier;
      return;
    }
  }
  device_ = static_cast<int32_t>(start % count);
}

DevicePlace::~DevicePlace() {
  // The file stays: to remove it would let two hold what has one name.
  if (lock_ >= 0) ::close(lock_);
}

DevicePlace::DevicePlace(DevicePlace&& other) noexcept
    : device_(other.device_), earlier_(other.earlier_), lock_(std::exchange(other.lock_, -1)) {}

std::vector<DeviceDescription> require_devices() {
  const auto missing = [](const auto&... why) {
    return MissingInput("device: cuda: ", why..., " (praetor doctor shows what there is)");
  };
  DeviceReport report;
  try {
    report = Library::instance().devices();
  } catch (const Error& failure) {
    throw missing(failure.what());
  }
  if (report.devices.empty()) throw missing("no GPU seen: ", report.failure);
  for (const DeviceDescription& each : report.devices) {
    if (each.major >= kLeastMajor) continue;
    throw missing(each.name,
                  " has compute capability ",
                  each.major,
                  '.',
                  each.minor,
                  ", ",
                  kLeastMajor,
                  ".0 or higher is needed; leave it out with CUDA_VISIBLE_DEVICES");
  }
  return report.devices;
}

std::shared_ptr<const DevicePlace> place_of_process() {
  static std::mutex mutex;
  static std::weak_ptr<const DevicePlace> kept;
  const std::lock_guard lock(mutex);
  if (auto place = kept.lock()) return place;
  const std::vector<DeviceDescription> devices = require_devices();
  std::error_code failure;
  fs::path folder = fs::temp_directory_path(failure);
  if (failure) folder = "/tmp";
  const auto place = std::make_shared<const DevicePlace>(devices, local_number(), folder);
  log::info(str("GPU ", place->device(), ": ", devices[static_cast<size_t>(place->device())].name));
  if (place->earlier() > 0) {
    log::warn(str("GPU ",
                  place->device(),
                  " has ",
                  place->earlier(),
                  " other processes of Praetor already: give each its part of the memory with "
                  "engine.cache_bytes (--cache-bytes)"));
  }
  kept = place;
  return place;
}

ChosenDevice ChosenDevice::take() {
  auto place = place_of_process();
  auto device = Library::instance().open(place->device());
  return {std::move(place), std::move(device)};
}

}  // namespace praetor::cuda
