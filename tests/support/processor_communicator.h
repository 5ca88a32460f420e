#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/cuda/communicator.h"

namespace praetor::testing {

/// A cuda::Communicator without GPUs, between threads or processes of one host: over sockets from
/// the first rank to each other one. It broadcasts from that rank alone. As NCCL does, it refuses
/// two ranks on one device, and lets the first rank be done with a broadcast as soon as its own
/// part is (here: once the sockets have taken it over); a rank that has gone is noticed when a
/// broadcast is polled. Nothing waits.
///
/// For the tests' sake the environment, where it says so, disturbs it:
///   PRAETOR_PROCESSOR_HOLD=FILE     while there is one, broadcasts stop after their first part
///   PRAETOR_PROCESSOR_CORRUPT=FILE  the rank that removes it has a bit of a broadcast flipped

/// Names a group; to be called in the process of its first rank.
std::string processor_group_id();
/// @throws cuda::DeviceError for an id that is none
std::unique_ptr<cuda::Communicator> join_processor_group(const std::string& id,
                                                         int32_t rank,
                                                         int32_t world_size,
                                                         int32_t device);

}  // namespace praetor::testing
