#include "tests/support/processor_device.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

namespace praetor::testing {
namespace {

std::atomic<int64_t> adamw_kernels{0};

}  // namespace

/// Kernels with their pointers and sizes as they were: what memory holds is looked at anew.
class ProcessorDevice::Steps final : public cuda::Recording {
 public:
  Steps(std::vector<std::function<void()>> steps, int64_t& replays)
      : steps_(std::move(steps)), replays_(replays) {}
  void replay() override {
    ++replays_;
    for (const auto& step : steps_) step();
  }

 private:
  std::vector<std::function<void()>> steps_;
  int64_t& replays_;
};

ProcessorDevice::~ProcessorDevice() {
  for (const auto& [memory, bytes] : memory_) std::free(memory);
}

void* ProcessorDevice::allocate(int64_t bytes) {
  const auto size = static_cast<size_t>((bytes + 255) / 256 * 256);
  if (static_cast<int64_t>(size) > free_bytes()) {
    throw cuda::DeviceMemoryError(str("GPU 0 (",
                                      description_.name,
                                      "): ",
                                      bytes,
                                      " bytes were asked for, ",
                                      free_bytes(),
                                      " of ",
                                      description_.memory_bytes,
                                      " are free"));
  }
  void* memory = std::aligned_alloc(256, size);
  std::memset(memory, 0, size);
  memory_.emplace(memory, static_cast<int64_t>(size));
  used_ += static_cast<int64_t>(size);
  peak_ = std::max(peak_, used_);
  return memory;
}

void ProcessorDevice::release(void* memory) noexcept {
  const auto found = memory_.find(memory);
  used_ -= found->second;
  memory_.erase(found);
  std::free(memory);
}

void ProcessorDevice::upload(void* to, const void* from, int64_t bytes) {
  copy(to, from, bytes);
  ++uploads_;
}

void ProcessorDevice::download(void* to, const void* from, int64_t bytes) {
  copy(to, from, bytes);
  ++downloads_;
}

void ProcessorDevice::copy(void* to, const void* from, int64_t bytes) {
  PRAETOR_CHECK(!recorded_, "copies are not recorded");
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

void ProcessorDevice::start(std::function<void()> work) {
  if (recorded_)
    recorded_->push_back(std::move(work));
  else
    work();
}

void ProcessorDevice::multiply(const cuda::Product& product) {
  start([p = product] {
    for (int64_t r = 0; r < p.rows; ++r) {
      for (int64_t c = 0; c < p.outputs; ++c) {
        const cuda::Bfloat16 *x = p.x + r * p.inputs, *w = p.weight + c * p.inputs;
        float sum = 0;
        for (int64_t i = 0; i < p.inputs; ++i)
          sum = std::fma(cuda::to_float(x[i]), cuda::to_float(w[i]), sum);
        float& y = p.y[r * p.outputs + c];
        y = p.add ? y + sum : sum;
      }
    }
  });
}

template <typename Kernel>
void ProcessorDevice::launch_kernel(Kernel kernel) {
  if constexpr (requires { kernel.square; }) {
    const auto here = [&](auto*& pointer) {
      using Pointer = std::remove_reference_t<decltype(pointer)>;
      if (translate_)
        pointer =
            static_cast<Pointer>(translate_(const_cast<void*>(static_cast<const void*>(pointer))));
    };
    here(kernel.weight);
    here(kernel.mean);
    here(kernel.square);
    here(kernel.grad);
    ++adamw_kernels;
    start([kernel] {
      run_kernel(kernel);
      const char* const file = std::getenv("PRAETOR_PROCESSOR_CORRUPT_STEP");
      if (file && ::unlink(file) == 0) kernel.weight[0] = -kernel.weight[0];
    });
  } else {
    start([kernel] { run_kernel(kernel); });
  }
}

#define X(Kernel)                                            \
  void ProcessorDevice::launch(const cuda::Kernel& kernel) { \
    launch_kernel(kernel);                                   \
  }
PRAETOR_CUDA_KERNELS(X)
#undef X

std::unique_ptr<cuda::Recording> ProcessorDevice::record(const std::function<void()>& work) {
  std::vector<std::function<void()>> steps;
  recorded_ = &steps;
  work();
  recorded_ = nullptr;
  return std::make_unique<Steps>(std::move(steps), replays_);
}

int64_t processor_adamw_kernels() {
  return adamw_kernels;
}

}  // namespace praetor::testing
