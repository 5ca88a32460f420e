#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <string>

namespace praetor::testing {

/// A device of LibTorch that is not the CPU, and yet needs no hardware: its memory is the
/// processor's and its operators are the CPU's (but that square roots are rounded as IEEE says,
/// which a GPU does and MKL does not), but its tensors are of another device type (PrivateUse1).
/// What brings tensors of two devices together, other than by a copy or as a number (a tensor
/// without dimensions), throws as it does on a GPU. Who takes an address of such a tensor for one
/// of the processor's ends the process: nothing can be read there.
///
/// There are kEmulatedDevices of them, each with a thread of autograd of its own: ranks that are
/// threads of a test take one each, as ranks take a GPU each.
constexpr int64_t kEmulatedDevices = 4;
c10::Device emulated_device(int64_t index = 0);

/// Bytes that a device has given out.
struct EmulatedMemory {
  int64_t now = 0;
  int64_t peak = 0;  ///< since the process began, or since `restart_emulated_peak`
};
EmulatedMemory emulated_memory(int64_t index = 0);
void restart_emulated_peak(int64_t index = 0);

/// Told the name of every operator before it runs on one of them ("aten::mm"), perhaps on a thread
/// of autograd; empty: nobody. Changed while nothing runs.
void observe_emulated_operators(std::function<void(const std::string& name)> observer);
/// Operators that have run on all of the devices.
int64_t emulated_operators();
/// Tensors that were copied to one of them from the processor, or the other way.
int64_t emulated_transfers();

}  // namespace praetor::testing

/// Where the processor has the bytes of an address of the emulated devices'; any other address as
/// it is. For what computes beside LibTorch, in this library or in another one
/// (tests/cuda_processor/library.cpp looks it up by name). @throws c10::Error where nothing lies
extern "C" __attribute__((visibility("default"))) void* praetor_emulated_address(void* address);
