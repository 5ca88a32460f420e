#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include "core/base/error.h"
#include "core/cuda/device.h"

/// CUDA's statuses as errors of ours; for the sources of the GPU library.
namespace praetor::cuda {

/// @throws DeviceError naming the call
inline void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  throw DeviceError(
      str("GPU: ", call, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")"));
}

inline void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError(str("GPU: ", call, ": ", cublasGetStatusString(status)));
}

#define PRAETOR_CUDA(call) ::praetor::cuda::check((call), #call)

}  // namespace praetor::cuda
