#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/cuda/communicator.h"

/// NCCL and CUDA behind cuda::Communicator; in the GPU library alone.
namespace praetor::cuda {

/// "2.28.9"
std::string nccl_version();
/// @throws DeviceError
std::string nccl_id();
/// @throws InvalidArgument for an id that nccl_id() did not make; DeviceError
std::unique_ptr<Communicator> join_nccl(const std::string& id,
                                        int32_t rank,
                                        int32_t world_size,
                                        int32_t device);

}  // namespace praetor::cuda
