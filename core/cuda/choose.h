#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "core/cuda/device.h"

namespace praetor::cuda {

/// A place on a GPU, kept as long as the object lives, so that this user's processes on a host
/// spread over its GPUs however they were started: by a lock of a file in `folder`, of which a GPU
/// has one for its first process, one for its second, and so on.
class DevicePlace {
 public:
  /// The first free place in this order: first places before second ones, GPUs from number `start`
  /// on. Where no file can be locked it is GPU `start` (all modulo their number).
  /// @param devices  not empty
  DevicePlace(const std::vector<DeviceDescription>& devices,
              int64_t start,
              const std::filesystem::path& folder);
  ~DevicePlace();
  DevicePlace(DevicePlace&& other) noexcept;
  DevicePlace& operator=(DevicePlace&&) = delete;

  int32_t device() const { return device_; }
  int32_t earlier() const { return earlier_; }  ///< processes that the GPU has already

 private:
  int32_t device_ = 0, earlier_ = 0;
  int lock_ = -1;
};

/// This process's number among those that one launcher started on this host, as
/// OMPI_COMM_WORLD_LOCAL_RANK or SLURM_LOCALID says it; 0 where nobody does.
int64_t local_number();

/// Throws unless there is a GPU library and it sees a GPU that it was built for.
/// @throws MissingInput in the words of `praetor doctor`
std::vector<DeviceDescription> require_devices();

/// The place of this process, which has one GPU for all that it computes: at the first call among
/// those that CUDA_VISIBLE_DEVICES lets it see the one that the fewest others of this user's
/// processes have chosen, from local_number() on. It is kept as long as somebody here has it. Any
/// thread.
/// @throws as require_devices
std::shared_ptr<const DevicePlace> place_of_process();

/// The GPU of this process, opened.
class ChosenDevice {
 public:
  /// @throws as require_devices; DeviceError
  static ChosenDevice take();

  Device& device() { return *device_; }
  const DevicePlace& place() const { return *place_; }

 private:
  ChosenDevice(std::shared_ptr<const DevicePlace> place, std::unique_ptr<Device> device)
      : place_(std::move(place)), device_(std::move(device)) {}
  std::shared_ptr<const DevicePlace> place_;
  std::unique_ptr<Device> device_;
};

}  // namespace praetor::cuda
