#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/cuda/bfloat16.h"
#include "core/cuda/kernels/adamw.h"
#include "core/cuda/kernels/attention.h"
#include "core/cuda/kernels/rows.h"
#include "core/cuda/kernels/sample.h"

namespace praetor::cuda {

/// A GPU, its driver or a library of CUDA's failed; the message names the call and CUDA's words.
class DeviceError : public Error {
 public:
  explicit DeviceError(const std::string& message)
      : Error(ErrorCode::kUnavailable, kExitTemporary, message) {}
};
/// The GPU's memory is full; the message says what was asked for and what was free.
class DeviceMemoryError : public Error {
 public:
  explicit DeviceMemoryError(const std::string& message)
      : Error(ErrorCode::kResourceExhausted, kExitUsage, message) {}
};

/// y [rows, outputs] = x [rows, inputs] times weight [outputs, inputs] transposed, added to what y
/// holds when `add`. Products of bfloat16 are summed in float32.
struct Product {
  const Bfloat16* x;
  const Bfloat16* weight;
  float* y;
  int64_t rows, inputs, outputs;
  bool add = false;
};

/// Every kernel; a new one is a struct in kernels/ and a line here.
#define PRAETOR_CUDA_KERNELS(X) \
  X(EmbedKernel)                \
  X(NormKernel)                 \
  X(AddNormKernel)              \
  X(AddBiasKernel)              \
  X(SoftcapKernel)              \
  X(RotateStoreKernel)          \
  X(AttendKernel)               \
  X(JoinKernel)                 \
  X(GatedKernel)                \
  X(SampleKernel)               \
  X(AdamWKernel)                \
  X(CoarseAdamWKernel)

struct DeviceDescription {
  std::string name;
  int64_t memory_bytes = 0;
  int64_t multiprocessors = 0;
  int32_t major = 0, minor = 0;  ///< compute capability
  int64_t shared_bytes = 0;      ///< most memory that the threads of a block may share
  std::string id;                ///< of the GPU, in every process of this host; a file name
};

/// In what order a device's work is done.
enum class Stream : uint8_t {
  kOwn,  ///< its own, beside all else
  /// That of CUDA's default stream, where LibTorch computes: after what that was given before, and
  /// before what it is given next. Memory and kernels alone, neither products nor recordings.
  kCompute
};

/// What was recorded once, to be done again.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void replay() = 0;
};

/// A GPU as Praetor uses it: memory, products, the kernels of kernels/, in the order of the calls
/// on one stream. Made by the GPU library (library.h); the tests have one that computes on the
/// processor. Whatever is made on a device is gone before it. One thread at a time.
///
/// Every call @throws DeviceError. Work is started and not waited for, so a failure of it may show
/// at a later call.
class Device {
 public:
  virtual ~Device() = default;
  Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  virtual const DeviceDescription& description() const = 0;
  /// Of its memory, whoever uses the rest.
  virtual int64_t free_bytes() = 0;

  /// `bytes` > 0, zeroed, at a multiple of 256. @throws DeviceMemoryError
  virtual void* allocate(int64_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  /// From the processor's memory, which is free again when the call returns.
  virtual void upload(void* to, const void* from, int64_t bytes) = 0;
  /// Into the processor's memory; waits for all that was started.
  virtual void download(void* to, const void* from, int64_t bytes) = 0;
  /// Within the device; the two do not overlap.
  virtual void copy(void* to, const void* from, int64_t bytes) = 0;
  virtual void synchronize() = 0;

  virtual void multiply(const Product& product) = 0;
#define X(Kernel) virtual void launch(const Kernel& kernel) = 0;
  PRAETOR_CUDA_KERNELS(X)
#undef X

  /// What `work` starts is recorded (a CUDA graph), not done. It starts products and kernels alone.
  virtual std::unique_ptr<Recording> record(const std::function<void()>& work) = 0;
};

/// Memory of a device for `count` of T; the device is borrowed.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(Device& device, int64_t count)
      : device_(&device),
        data_(static_cast<T*>(
            device.allocate(static_cast<int64_t>(sizeof(T)) * (count > 0 ? count : 1)))),
        size_(count) {}
  ~DeviceArray() {
    if (data_) device_->release(data_);
  }
  DeviceArray(DeviceArray&& other) noexcept { swap(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    DeviceArray(std::move(other)).swap(*this);
    return *this;
  }

  T* get() const { return data_; }
  int64_t size() const { return size_; }
  void upload(const T* from, int64_t count, int64_t at = 0) {
    PRAETOR_CHECK(at >= 0 && at + count <= size_, "upload beyond the array");
    if (count > 0) device_->upload(data_ + at, from, count * static_cast<int64_t>(sizeof(T)));
  }
  void upload(const std::vector<T>& from) {
    upload(from.data(), static_cast<int64_t>(from.size()));
  }
  std::vector<T> download(int64_t count) const {
    PRAETOR_CHECK(count <= size_, "download beyond the array");
    std::vector<T> out(static_cast<size_t>(count));
    if (count > 0) device_->download(out.data(), data_, count * static_cast<int64_t>(sizeof(T)));
    return out;
  }

 private:
  void swap(DeviceArray& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  Device* device_ = nullptr;
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace praetor::cuda
