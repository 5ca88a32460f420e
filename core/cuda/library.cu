#include "core/collective/nccl_communicator.h"
#include "core/cuda/check.h"
#include "core/cuda/gpu.h"
#include "core/cuda/library.h"

namespace praetor::cuda {
namespace {

DeviceReport devices() {
  DeviceReport out;
  try {
    int count = 0;
    PRAETOR_CUDA(cudaGetDeviceCount(&count));
    for (int i = 0; i < count; ++i) out.devices.push_back(describe(i));
    if (count == 0) out.failure = "GPU: cudaGetDeviceCount says 0";
  } catch (const std::exception& failure) {
    out.failure = failure.what();
  }
  return out;
}

}  // namespace
}  // namespace praetor::cuda

extern "C" __attribute__((visibility("default"))) const praetor::cuda::LibraryTable*
praetor_cuda_library() {
  namespace cuda = praetor::cuda;
  static const std::string built_for =
      praetor::str(PRAETOR_CUDA_BUILT_FOR, ", NCCL ", cuda::nccl_version());
  static const cuda::LibraryTable table{cuda::kLibraryVersion,
                                        built_for.c_str(),
                                        cuda::devices,
                                        cuda::open_gpu,
                                        cuda::nccl_id,
                                        cuda::join_nccl};
  return &table;
}
