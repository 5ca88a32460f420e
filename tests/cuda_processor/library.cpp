// A GPU library without a GPU: its devices, two or PRAETOR_PROCESSOR_DEVICES, are the processor and
// its NCCL is sockets (tests/support/processor_communicator.h), so that scripts can run the whole
// program with `device: cuda` (PRAETOR_CUDA_LIBRARY names it).
#include "core/cuda/library.h"

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

std::unique_ptr<Device> open(int32_t index) {
  if (index < 0 || index >= device_count()) throw DeviceError("GPU: no such device");
  return std::make_unique<praetor::testing::ProcessorDevice>();
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
                                        praetor::testing::join_processor_group};
  return &table;
}
