#pragma once

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "core/cuda/device.h"
#include "tests/support/translate.h"

namespace praetor::testing {

/// The threads of a kernel's block as threads of the processor: what they share, and this one.
class ProcessorBlock {
 public:
  struct Shared {
    explicit Shared(int count, int64_t bytes)
        : threads(count),
          barrier(count),
          memory(static_cast<size_t>(bytes / 16 + 1)),
          sums(static_cast<size_t>(count)) {}
    struct alignas(16) Unit {
      char bytes[16];
    };
    int threads;
    std::barrier<> barrier;
    std::vector<Unit> memory;
    struct Value {
      float real;
      uint64_t integer;
    };
    std::vector<Value> sums;
  };
  ProcessorBlock(Shared& shared, int thread) : shared_(shared), thread_(thread) {}

  int thread() const { return thread_; }
  int threads() const { return shared_.threads; }
  void sync() { shared_.barrier.arrive_and_wait(); }
  char* memory() const { return shared_.memory.data()->bytes; }
  float sum(float value) {
    return over_all<float>([&](auto& own) { own.real = value; },
                           [&] {
                             float out = 0;
                             for (const auto& each : shared_.sums) out += each.real;
                             return out;
                           });
  }
  uint64_t sum(uint64_t value) {
    return over_all<uint64_t>([&](auto& own) { own.integer = value; },
                              [&] {
                                uint64_t out = 0;
                                for (const auto& each : shared_.sums) out += each.integer;
                                return out;
                              });
  }
  float max(float value) {
    return over_all<float>([&](auto& own) { own.real = value; },
                           [&] {
                             float out = -INFINITY;
                             for (const auto& each : shared_.sums) out = std::max(out, each.real);
                             return out;
                           });
  }
  void add(uint64_t* bins, int bin, uint64_t value) {
    std::atomic_ref<uint64_t>(bins[bin]).fetch_add(value, std::memory_order_relaxed);
  }

 private:
  template <typename T, typename Put, typename Take>
  T over_all(Put put, Take take) {
    put(shared_.sums[static_cast<size_t>(thread_)]);
    sync();
    const T out = take();
    sync();
    return out;
  }

  Shared& shared_;
  int thread_;
};

/// All blocks of a kernel, one after the other, each by `threads` threads.
template <typename Kernel>
void run_kernel(const Kernel& kernel, int threads = 1) {
  const cuda::Grid grid = kernel.grid();
  const auto blocks = [&](ProcessorBlock block) {
    for (cuda::Grid at{0, 0, 0}; at.x < grid.x; ++at.x) {
      for (at.y = 0; at.y < grid.y; ++at.y) {
        for (at.z = 0; at.z < grid.z; ++at.z) {
          kernel(block, at);
          block.sync();  // the next one has the same memory
        }
      }
    }
  };
  ProcessorBlock::Shared shared(threads, kernel.memory());
  std::vector<std::jthread> others;
  for (int i = 1; i < threads; ++i)
    others.emplace_back([&, i] { blocks(ProcessorBlock(shared, i)); });
  blocks(ProcessorBlock(shared, 0));
}

/// A cuda::Device whose memory is the processor's and whose kernels are run_kernel: the very
/// arithmetic of the GPU library, in another order of sums, without a GPU. Products are sums in
/// float32, as cuBLAS's.
///
/// For the tests' sake the environment, where it says so, disturbs it:
///   PRAETOR_PROCESSOR_CORRUPT_STEP=FILE  the kernel of AdamW that removes it leaves its first
///                                        weight with the wrong sign
class ProcessorDevice final : public cuda::Device {
 public:
  /// @param memory_bytes  beyond which nothing can be allocated
  explicit ProcessorDevice(int64_t multiprocessors = 1, int64_t memory_bytes = int64_t{1} << 30) {
    description_.name = "processor";
    description_.multiprocessors = multiprocessors;
    description_.memory_bytes = memory_bytes;
    description_.major = 9;
    description_.shared_bytes = 100 << 10;
    description_.id = "0123456789abcdef";
  }
  ~ProcessorDevice() override;

  /// AdamW's pointers are from now on addresses that this takes, as of LibTorch's device where that
  /// is emulated; null: they can be read as they are.
  void translate_by(Translate translate) { translate_ = translate; }

  const cuda::DeviceDescription& description() const override { return description_; }
  int64_t free_bytes() override { return description_.memory_bytes - used_; }
  void* allocate(int64_t bytes) override;
  void release(void* memory) noexcept override;
  void upload(void* to, const void* from, int64_t bytes) override;
  void download(void* to, const void* from, int64_t bytes) override;
  void copy(void* to, const void* from, int64_t bytes) override;
  void synchronize() override {}
  void multiply(const cuda::Product& product) override;
#define X(Kernel) void launch(const cuda::Kernel& kernel) override;
  PRAETOR_CUDA_KERNELS(X)
#undef X
  std::unique_ptr<cuda::Recording> record(const std::function<void()>& work) override;

  /// Bytes that are allocated, and the most that have been.
  int64_t used_bytes() const {
    return used_;
  }
  int64_t peak_bytes() const {
    return peak_;
  }
  int64_t replays() const {
    return replays_;
  }
  int64_t uploads() const {
    return uploads_;
  }
  int64_t downloads() const {
    return downloads_;
  }

 private:
  class Steps;
  void start(std::function<void()> work);
  template <typename Kernel>
  void launch_kernel(Kernel kernel);

  cuda::DeviceDescription description_;
  std::map<void*, int64_t> memory_;  ///< and its bytes
  int64_t used_ = 0, peak_ = 0;
  std::vector<std::function<void()>>* recorded_ = nullptr;  ///< while recording
  int64_t replays_ = 0, uploads_ = 0, downloads_ = 0;
  Translate translate_ = nullptr;
};

/// Kernels of AdamW that all of them have run in this process.
int64_t processor_adamw_kernels();

}  // namespace praetor::testing
