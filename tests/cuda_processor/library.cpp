// A GPU library without a GPU: its two devices are the processor, so that scripts can run the whole
// program with `device: cuda` (PRAETOR_CUDA_LIBRARY names it).
#include "core/cuda/library.h"

#include <memory>
#include <string>

#include "tests/support/processor_device.h"

namespace praetor::cuda {
namespace {

constexpr int32_t kDevices = 2;

DeviceReport devices() {
  DeviceReport out;
  for (int32_t i = 0; i < kDevices; ++i) {
    out.devices.push_back(praetor::testing::ProcessorDevice().description());
    out.devices.back().id += static_cast<char>('0' + i);
  }
  return out;
}

std::unique_ptr<Device> open(int32_t index) {
  if (index < 0 || index >= kDevices) throw DeviceError("GPU: no such device");
  return std::make_unique<praetor::testing::ProcessorDevice>();
}

[[noreturn]] void refuse() {
  throw DeviceError("NCCL: this library has none");
}
std::string nccl_id() {
  refuse();
}
std::unique_ptr<Communicator> join(const std::string&, int32_t, int32_t, int32_t) {
  refuse();
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
                                        cuda::nccl_id,
                                        cuda::join};
  return &table;
}
