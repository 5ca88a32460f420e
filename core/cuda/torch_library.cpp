#include "core/cuda/torch_library.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>
#include <link.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <string_view>
#include <system_error>

#include "core/base/error.h"

namespace praetor::cuda {

namespace fs = std::filesystem;

namespace {

constexpr const char* kName = "libtorch_cuda.so";
constexpr const char* kVariable = "PRAETOR_TORCH_CUDA_LIBRARY";
/// int8_t c10::cuda::device_count_ensure_non_zero(), which throws with the driver's words.
constexpr const char* kCount = "_ZN3c104cuda28device_count_ensure_non_zeroEv";

/// The folder of the LibTorch that this process runs; empty: it is not known.
fs::path torch_folder() {
  std::string file;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        const std::string_view name = info->dlpi_name;
        if (name.ends_with("/libtorch_cpu.so")) *static_cast<std::string*>(out) = name;
        return 0;
      },
      &file);
  return fs::path(file).parent_path();
}

std::string first_line(std::string text) {
  return text.substr(0, text.find('\n'));
}

}  // namespace

const TorchLibrary& TorchLibrary::instance() {
  static const std::unique_ptr<TorchLibrary> kLibrary = [] {
    const char* const given = std::getenv(kVariable);
    const bool named = given && *given;
    const fs::path file = named ? fs::path(given) : torch_folder() / kName;
    std::error_code ignored;
    if (!fs::exists(file, ignored)) {
      throw MissingInput("LibTorch's CUDA half: ",
                         named ? str(kVariable, " names ", given) : file.string(),
                         ", which is not there",
                         named ? "" : " (scripts/bootstrap unpacks it)");
    }
    // Its operators are for all to see: LibTorch's CPU half finds them by what they register.
    void* const handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (!handle) {
      throw MissingInput("LibTorch's CUDA half: ",
                         ::dlerror(),
                         ": PRAETOR_GPU=1 scripts/bootstrap fetches CUDA's libraries; others are "
                         "found in the folders of LD_LIBRARY_PATH");
    }
    return std::unique_ptr<TorchLibrary>(new TorchLibrary(file.string(), handle));
  }();
  return *kLibrary;
}

int64_t TorchLibrary::devices() const {
  if (!c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA)) return 0;
  return c10::impl::getDeviceGuardImpl(c10::DeviceType::CUDA)->deviceCount();
}

std::string TorchLibrary::failure() const {
  if (devices() > 0) return "";
  if (auto* const count = reinterpret_cast<int8_t (*)()>(::dlsym(handle_, kCount))) {
    try {
      count();
    } catch (const std::exception& failure) {
      return first_line(failure.what());
    }
  }
  return "CUDA says that there is none";
}

void release_cached_memory(at::Device device) {
  if (device.is_cpu()) return;
  auto* const cache = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()));
  if (cache && cache->initialized()) cache->emptyCache();
}

int64_t require_torch_devices() {
  const auto missing = [](const auto&... why) {
    return MissingInput("device: cuda: ", why..., " (praetor doctor shows what there is)");
  };
  const TorchLibrary* library = nullptr;
  try {
    library = &TorchLibrary::instance();
  } catch (const MissingInput& failure) {
    throw missing(failure.what());
  }
  const std::string failure = library->failure();
  if (!failure.empty()) throw missing("no GPU seen: ", failure);
  return library->devices();
}

}  // namespace praetor::cuda
