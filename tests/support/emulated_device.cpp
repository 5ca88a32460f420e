#include "tests/support/emulated_device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Dispatch.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <sys/mman.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

// Of a library that takes the place of LibTorch's CUDA half (tests/CMakeLists.txt): CUDA.
#ifndef PRAETOR_EMULATED_TYPE
#define PRAETOR_EMULATED_TYPE PrivateUse1
#endif

namespace praetor::testing {
namespace {

constexpr c10::DeviceType kType = c10::DeviceType::PRAETOR_EMULATED_TYPE;
thread_local c10::DeviceIndex current_device = 0;
std::atomic<int64_t> operators{0}, transfers{0};
std::function<void(const std::string&)> observer;

/// Addresses that the devices give out, behind each of which lies memory elsewhere: nobody can read
/// or write at one of them.
class Memory {
 public:
  Memory()
      : begin_(static_cast<std::byte*>(::mmap(
            nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))) {
    TORCH_CHECK(begin_ != MAP_FAILED, "no addresses for the emulated devices");
  }

  std::byte* add(size_t bytes, c10::DeviceIndex device) {
    const size_t whole = (bytes + kBorder - 1) / kBorder * kBorder;
    const std::lock_guard lock(mutex_);
    TORCH_CHECK(used_ + whole + kBorder <= kBytes, "the emulated devices have no address left");
    std::byte* const address = begin_ + used_;
    used_ += whole + kBorder;
    auto* const values = static_cast<std::byte*>(std::aligned_alloc(kBorder, whole));
    if (!values) throw std::bad_alloc();
    blocks_[address] = {values, bytes, device};
    EmulatedMemory& of = devices_[static_cast<size_t>(device)];
    of.now += static_cast<int64_t>(bytes);
    of.peak = std::max(of.peak, of.now);
    return address;
  }
  void remove(void* address) {
    const std::lock_guard lock(mutex_);
    const auto block = blocks_.find(static_cast<std::byte*>(address));
    devices_[static_cast<size_t>(block->second.device)].now -=
        static_cast<int64_t>(block->second.bytes);
    std::free(block->second.values);
    blocks_.erase(block);
  }
  bool has(const void* address) const {
    const auto* const at = static_cast<const std::byte*>(address);
    return at >= begin_ && at < begin_ + kBytes;
  }
  /// Where the values are.
  std::byte* values(const void* address) {
    const auto* const at = static_cast<const std::byte*>(address);
    const std::lock_guard lock(mutex_);
    auto block = blocks_.upper_bound(const_cast<std::byte*>(at));
    TORCH_CHECK(block != blocks_.begin(), "an address of no emulated device");
    --block;
    const auto offset = static_cast<size_t>(at - block->first);
    TORCH_CHECK(offset < block->second.bytes, "an address of no emulated device");
    return block->second.values + offset;
  }
  EmulatedMemory of(int64_t device) {
    const std::lock_guard lock(mutex_);
    return devices_.at(static_cast<size_t>(device));
  }
  void restart(int64_t device) {
    const std::lock_guard lock(mutex_);
    EmulatedMemory& of = devices_.at(static_cast<size_t>(device));
    of.peak = of.now;
  }

 private:
  static constexpr size_t kBytes = size_t{1} << 40, kBorder = 64;
  struct Block {
    std::byte* values;
    size_t bytes;
    c10::DeviceIndex device;
  };
  std::mutex mutex_;
  std::byte* begin_;
  size_t used_ = 0;
  std::map<std::byte*, Block> blocks_;
  std::array<EmulatedMemory, kEmulatedDevices> devices_{};
};

Memory& memory() {
  static auto* const kMemory = new Memory();  // tensors may die after it
  return *kMemory;
}

struct Allocator final : c10::Allocator {
  static void release(void* address) {
    if (address) memory().remove(address);
  }
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device device(kType, current_device);
    if (bytes == 0) return {nullptr, nullptr, &release, device};
    void* const address = memory().add(bytes, current_device);
    return {address, address, &release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(memory().values(to), memory().values(from), bytes);
  }
};

Allocator allocator;
REGISTER_ALLOCATOR(kType, &allocator);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = kType;
  Guard() = default;
  explicit Guard(c10::DeviceType) {}
  c10::DeviceType type() const override { return kType; }
  c10::Device getDevice() const override { return {kType, current_device}; }
  c10::Device exchangeDevice(c10::Device device) const override {
    return {kType, std::exchange(current_device, checked(device))};
  }
  void setDevice(c10::Device device) const override { current_device = checked(device); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current_device = device.index();
  }
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return kEmulatedDevices; }
  void record(void**,
              const c10::Stream&,
              const c10::DeviceIndex,
              const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}

 private:
  static c10::DeviceIndex checked(c10::Device device) {
    TORCH_CHECK(device.index() < kEmulatedDevices, "there is no ", device);
    return device.index() < 0 ? current_device : device.index();
  }
};
C10_REGISTER_GUARD_IMPL(PRAETOR_EMULATED_TYPE, Guard)

/// What LibTorch asks of a device's runtime beside the device itself.
template <typename Interface>
struct Runtime : Interface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex getCurrentDevice() const override { return current_device; }
  c10::DeviceIndex deviceCount() const override { return kEmulatedDevices; }
  /// Nothing is drawn on the device; at::manual_seed seeds this one twice.
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
};

#ifdef PRAETOR_EMULATES_CUDA
struct CUDAHooks final : Runtime<at::CUDAHooksInterface> {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  bool hasCUDA() const override { return true; }
  int getNumGPUs() const override { return kEmulatedDevices; }
};
using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks);
#else
[[maybe_unused]] const bool kRegistered = [] {
  c10::register_privateuse1_backend("emulated");
  static Runtime<at::PrivateUse1HooksInterface> runtime;
  at::RegisterPrivateUse1HooksInterface(&runtime);
  return true;
}();
#endif

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PRAETOR_EMULATED_TYPE);

at::Tensor empty(at::IntArrayRef size,
                 std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>,
                 std::optional<at::Device> device,
                 std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(size, &allocator, kKeys, c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(at::IntArrayRef size,
                         at::IntArrayRef stride,
                         std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>,
                         std::optional<at::Device> device,
                         std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(
      size, stride, &allocator, kKeys, c10::dtype_or_default(dtype));
}

/// The same memory as a tensor of the CPU.
at::Tensor as_cpu(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  const auto options = tensor.options().device(at::kCPU);
  if (tensor.numel() == 0) return at::empty_strided(tensor.sizes(), tensor.strides(), options);
  return at::from_blob(memory().values(tensor.unsafeGetTensorImpl()->mutable_data()),
                       tensor.sizes(),
                       tensor.strides(),
                       options);
}

at::Tensor& copy(at::Tensor& to, const at::Tensor& from, bool) {
  if (to.device().type() != from.device().type()) ++transfers;
  as_cpu(to).copy_(as_cpu(from));
  return to;
}

const at::Tensor& resized(const at::Tensor& tensor,
                          at::IntArrayRef size,
                          std::optional<at::MemoryFormat>) {
  const c10::OptionalDeviceGuard guard(tensor.device());
  at::TensorImpl* const impl = tensor.unsafeGetTensorImpl();
  c10::StorageImpl* const storage = tensor.storage().unsafeGetStorageImpl();
  impl->set_sizes_contiguous(size);
  const auto bytes = static_cast<size_t>(tensor.numel()) * tensor.element_size();
  if (storage->nbytes() < bytes) {
    storage->set_data_ptr_noswap(allocator.allocate(bytes));
    storage->set_nbytes(bytes);
  }
  return tensor;
}

/// One call of an operator: arguments go in as tensors of the CPU, results come out on the device.
class Call {
 public:
  explicit Call(const c10::OperatorHandle& op) : op_(op) {}

  void run(torch::jit::Stack* stack) {
    const auto& schema = op_.schema();
    const size_t count = schema.arguments().size(), first = stack->size() - count;
    for (size_t i = 0; i < count; ++i) find_device((*stack)[first + i]);
    TORCH_CHECK(device_, schema.name(), " without a tensor of the emulated device");
    for (const auto& made : schema.returns()) {
      const auto* const alias = made.alias_info();
      TORCH_CHECK(!alias || alias->isWrite(), schema.name(), " of the emulated device is no view");
    }
    for (size_t i = 0; i < count; ++i) {
      const auto* const alias = schema.arguments()[i].alias_info();
      (*stack)[first + i] = inward((*stack)[first + i], alias && alias->isWrite());
    }
    op_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
    for (Pair& pair : written_) give_back(pair);
    for (c10::IValue& value : *stack) value = outward(value);
  }

 private:
  struct Pair {
    at::Tensor there, here;
  };

  void require_one_device(const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    if (tensor.is_cpu()) {
      // Numbers may come from anywhere, as on a GPU.
      TORCH_CHECK(tensor.dim() == 0,
                  op_.schema().name(),
                  ": expected all tensors to be on the same device, but found one of ",
                  tensor.sizes(),
                  " on the CPU");
      return;
    }
    TORCH_CHECK(!device_ || *device_ == tensor.device(),
                op_.schema().name(),
                ": expected all tensors to be on the same device, but found ",
                *device_,
                " and ",
                tensor.device());
    device_ = tensor.device();
  }
  void find_device(const c10::IValue& value) {
    if (value.isTensor()) require_one_device(value.toTensor());
    if (value.isTensorList()) {
      for (const at::Tensor& one : value.toTensorVector()) require_one_device(one);
    }
    if (value.isOptionalTensorList()) {
      for (const std::optional<at::Tensor>& one : value.toOptionalTensorVector())
        if (one) require_one_device(*one);
    }
  }
  at::Tensor inward(const at::Tensor& tensor, bool written) {
    if (!tensor.defined() || tensor.is_cpu()) return tensor;
    // What is written and has no elements is made by the operator.
    const at::Tensor here = as_cpu(tensor);
    pairs_.push_back({tensor, here});
    if (written) written_.push_back(pairs_.back());
    return here;
  }
  c10::IValue inward(const c10::IValue& value, bool written) {
    if (value.isTensor()) return inward(value.toTensor(), written);
    if (value.isTensorList()) {
      std::vector<at::Tensor> out;
      for (const at::Tensor& one : value.toTensorVector()) out.push_back(inward(one, written));
      return c10::IValue(std::move(out));
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> out;
      for (const std::optional<at::Tensor>& one : value.toOptionalTensorVector())
        out.push_back(one ? std::optional(inward(*one, written)) : std::nullopt);
      return c10::IValue(std::move(out));
    }
    if (value.isDevice()) return c10::IValue(c10::Device(at::kCPU));
    return value;
  }
  void give_back(Pair& pair) {
    if (pair.there.sizes() == pair.here.sizes()) return;
    resized(pair.there, pair.here.sizes(), std::nullopt);
    as_cpu(pair.there).copy_(pair.here);
  }
  at::Tensor outward(const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    for (const Pair& pair : pairs_)
      if (pair.here.is_same(tensor)) return pair.there;
    const at::Tensor out =
        at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(*device_));
    as_cpu(out).copy_(tensor);
    return out;
  }
  c10::IValue outward(const c10::IValue& value) {
    if (value.isTensor()) return outward(value.toTensor());
    if (!value.isTensorList()) return value;
    std::vector<at::Tensor> out;
    for (const at::Tensor& one : value.toTensorVector()) out.push_back(outward(one));
    return c10::IValue(std::move(out));
  }

  const c10::OperatorHandle& op_;
  std::optional<c10::Device> device_;
  std::vector<Pair> pairs_, written_;
};

/// Who does not ask what is allocated (tests/support/live_bytes.h does).
struct Nobody final : c10::MemoryReportingInfoBase {
  void reportMemoryUsage(void*, int64_t, size_t, size_t, c10::Device) override {}
  bool memoryProfilingEnabled() const override { return false; }
};

/// An operator that runs on a device, and who is told of it.
class Run {
 public:
  explicit Run(const std::string& name) : unseen_(c10::DebugInfoKind::PROFILER_STATE, nobody()) {
    ++operators;
    if (observer) observer(name);
  }

 private:
  static std::shared_ptr<Nobody> nobody() {
    static const auto kNobody = std::make_shared<Nobody>();
    return kNobody;
  }
  /// What the emulation itself allocates is no tensor of the program's.
  c10::DebugInfoGuard unseen_;
};

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const Run run(op.schema().name());
  Call(op).run(stack);
}

/// Rounded as IEEE says, as a GPU does; MKL, which the CPU's operator calls, does not always.
at::Tensor square_root(const at::Tensor& x) {
  const Run run("aten::sqrt");
  const at::Tensor out = at::empty(x.sizes(), x.options());
  const at::Tensor from = as_cpu(x).contiguous();
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "sqrt", [&] {
    scalar_t* const to = as_cpu(out).mutable_data_ptr<scalar_t>();
    for (int64_t i = 0; i < x.numel(); ++i) to[i] = std::sqrt(from.const_data_ptr<scalar_t>()[i]);
  });
  return out;
}

TORCH_LIBRARY_IMPL(aten, PRAETOR_EMULATED_TYPE, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("as_strided", &at::native::as_strided_tensorimpl);
  library.impl("view",
               static_cast<at::Tensor (*)(const at::Tensor&, at::IntArrayRef)>(&at::native::view));
  library.impl("_reshape_alias", &at::native::_reshape_alias);
  library.impl("copy_", &copy);
  library.impl("resize_", &resized);
  library.impl("sqrt", &square_root);
}

TORCH_LIBRARY_IMPL(_, PRAETOR_EMULATED_TYPE, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

}  // namespace

c10::Device emulated_device(int64_t index) {
  TORCH_CHECK(index >= 0 && index < kEmulatedDevices, "there is no emulated device ", index);
  return {kType, static_cast<c10::DeviceIndex>(index)};
}

EmulatedMemory emulated_memory(int64_t index) {
  return memory().of(index);
}

void restart_emulated_peak(int64_t index) {
  memory().restart(index);
}

void observe_emulated_operators(std::function<void(const std::string&)> told) {
  observer = std::move(told);
}

int64_t emulated_operators() {
  return operators;
}

int64_t emulated_transfers() {
  return transfers;
}

}  // namespace praetor::testing

extern "C" void* praetor_emulated_address(void* address) {
  auto& memory = praetor::testing::memory();
  return memory.has(address) ? memory.values(address) : address;
}
