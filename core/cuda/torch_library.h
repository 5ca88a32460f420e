#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>

/// LibTorch's CUDA half, libtorch_cuda.so, which a learner with `device: cuda` computes with. The
/// program links the CPU half alone and opens the other one where a job asks for it, so that one
/// build serves machines with and without a GPU. It needs CUDA's own libraries beside it:
/// `PRAETOR_GPU=1 scripts/bootstrap` fetches those that it was made with.
namespace praetor::cuda {

/// The library, opened once in a process and kept until its end. Any thread.
///
/// What asks LibTorch for CUDA before it is open, as the first backward of a process does, gets the
/// answer that there is none for good: it is opened before anything is computed.
class TorchLibrary {
 public:
  /// $PRAETOR_TORCH_CUDA_LIBRARY, else libtorch_cuda.so beside the libtorch_cpu.so of this process.
  /// @throws MissingInput naming the file that is not there, or with the loader's words for what it
  /// needs and cannot be found, and where to get it
  static const TorchLibrary& instance();

  const std::string& file() const { return file_; }
  /// GPUs that LibTorch sees; never throws.
  int64_t devices() const;
  /// Why there is none, in the words of CUDA's driver, as far as it says; empty: there is one.
  std::string failure() const;

 private:
  TorchLibrary(std::string file, void* handle) : file_(std::move(file)), handle_(handle) {}
  std::string file_;
  void* handle_;
};

/// Memory of the device that LibTorch keeps for later goes back, so that who does not ask LibTorch
/// for memory finds some. Nothing on the CPU.
void release_cached_memory(at::Device device);

/// The number of GPUs, at least one. @throws MissingInput in the words of `praetor doctor`
int64_t require_torch_devices();

}  // namespace praetor::cuda
