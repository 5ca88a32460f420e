// A GPU library without a GPU: its devices, two or PRAETOR_PROCESSOR_DEVICES, are the processor and
// its NCCL is sockets (tests/support/processor_communicator.h), so that scripts can run the whole
// program with `device: cuda` (PRAETOR_CUDA_LIBRARY names it).
#include "core/cuda/library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>

#include "tests/support/processor_communicator.h"
#include "tests/support/processor_device.h"

namespace praetor::cuda {
namespace {

int32_t device_count() {
  const char* wanted = std::getenv("PRAETOR_PROCESSOR_DEVICES");
  return wanted ? std::clamp(std::atoi(wanted), 1, 10) : 2;
}

DeviceReport devices() {
  DeviceReport out;
  for (int32_t i = 0; i < device_count(); ++i) {
    out.devices.push_back(praetor::testing::ProcessorDevice().description());
    out.devices.back().id += static_cast<char>('0' + i);
  }
  return out;
}

/// The emulated LibTorch's function that says where the bytes of its devices are; null without one
/// in this process.
praetor::testing::Translate translation() {
  const char* file = std::getenv("PRAETOR_TORCH_CUDA_LIBRARY");
  void* const library = file && *file ? ::dlopen(file, RTLD_LAZY | RTLD_NOLOAD) : nullptr;
  if (!library) return nullptr;
  void* const found = ::dlsym(library, "praetor_emulated_address");
  ::dlclose(library);  // it stays: somebody else has opened it
  return reinterpret_cast<praetor::testing::Translate>(found);
}

std::unique_ptr<Device> open(int32_t index, Stream stream) {
  if (index < 0 || index >= device_count()) throw DeviceError("GPU: no such device");
  auto device = std::make_unique<praetor::testing::ProcessorDevice>();
  if (stream == Stream::kCompute) device->translate_by(translation());
  return device;
}

std::unique_ptr<Communicator> join(const std::string& id,
                                   int32_t rank,
                                   int32_t world_size,
                                   int32_t device) {
  return praetor::testing::join_processor_group(id, rank, world_size, device, translation());
}

}  // namespace
}  // namespace praetor::cuda

extern "C" __attribute__((visibility("default"))) const praetor::cuda::LibraryTable*
praetor_cuda_library() {
  namespace cuda = praetor::cuda;
  static const cuda::LibraryTable table{cuda::kLibraryVersion,
                                        "threads of the processor",
                                        cuda::devices,
                                        cuda::open,
                                        praetor::testing::processor_group_id,
                                        cuda::join};
  return &table;
}
