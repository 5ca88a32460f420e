#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/cuda/communicator.h"
#include "tests/support/translate.h"

namespace praetor::testing {

/// A cuda::Communicator without GPUs, between threads or processes of one host: sockets from the
/// first rank to each other one, and a thread of its own that does the work, in the order in which
/// it was started. Whatever all ranks take part in goes to the first rank, which sends each its
/// result; sums are in rank order, bfloat16 in float32 and rounded once, so that results are those
/// of the other collectives bit for bit. What goes between two ranks alone is refused.
///
/// As NCCL does, it refuses two ranks on one device, and lets the first rank be done with a
/// broadcast of its own as soon as its part is (here: once the sockets have taken it over). A rank
/// that has gone is noticed by the first rank when something is to come from it or go to it, and by
/// the others once the first rank gives up. Nothing waits.
///
/// For the tests' sake the environment, where it says so, disturbs it:
///   PRAETOR_PROCESSOR_HOLD=FILE     while there is one, what the first rank sends stops after its
///                                   first part
///   PRAETOR_PROCESSOR_CORRUPT=FILE  the rank, other than the first, that removes it has the
///                                   highest bit (a number's sign) of an element in the middle
///                                   flipped of what came into its device's memory

/// Names a group; to be called in the process of its first rank.
std::string processor_group_id();
/// @param translate  of the addresses that work names; null: they can be read as they are
/// @throws cuda::DeviceError for an id that is none
std::unique_ptr<cuda::Communicator> join_processor_group(const std::string& id,
                                                         int32_t rank,
                                                         int32_t world_size,
                                                         int32_t device,
                                                         Translate translate = nullptr);

}  // namespace praetor::testing
