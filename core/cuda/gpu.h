#pragma once

#include <cstdint>
#include <memory>

#include "core/cuda/device.h"

/// What the sources of the GPU library have of each other.
namespace praetor::cuda {

/// @throws InvalidArgument for an index that is not a device's, DeviceError
DeviceDescription describe(int32_t index);
std::unique_ptr<Device> open_gpu(int32_t index, Stream stream);

}  // namespace praetor::cuda
