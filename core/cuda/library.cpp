#include "core/cuda/library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "core/base/error.h"

namespace praetor::cuda {

namespace fs = std::filesystem;

namespace {

constexpr const char* kName = "libpraetor_cuda.so";

/// Beside this program, where a build and a bundle have it.
fs::path beside_program() {
  std::error_code failure;
  const fs::path program = fs::read_symlink("/proc/self/exe", failure);
  return failure ? fs::path() : program.parent_path().parent_path() / "lib" / kName;
}

}  // namespace

std::unique_ptr<Library> Library::load(const std::string& file) {
  // Its symbols stay its own: the program and LibTorch have NCCL and CUDA libraries in view, too.
  void* handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw InvalidArgument("GPU library: ", ::dlerror());
  using Entry = const LibraryTable* (*)();
  const auto entry = reinterpret_cast<Entry>(::dlsym(handle, kLibrarySymbol));
  if (!entry) throw InvalidArgument("GPU library: ", file, " does not export ", kLibrarySymbol);
  const LibraryTable* table = entry();
  if (table->version != kLibraryVersion) {
    throw InvalidArgument("GPU library: ",
                          file,
                          " has interface ",
                          table->version,
                          ", this program ",
                          kLibraryVersion,
                          ": use the two of one build");
  }
  return std::unique_ptr<Library>(new Library(file, table));
}

const Library& Library::instance() {
  static const std::unique_ptr<Library> kLibrary = [] {
    if (const char* given = std::getenv("PRAETOR_CUDA_LIBRARY"); given && *given) {
      if (!fs::exists(given))
        throw MissingInput(
            "GPU library: PRAETOR_CUDA_LIBRARY names ", given, ", which is not there");
      return load(given);
    }
    const fs::path beside = beside_program();
    std::error_code ignored;
    if (fs::exists(beside, ignored)) return load(beside.string());
    try {
      return load(kName);
    } catch (const InvalidArgument& failure) {
      throw MissingInput(
          "GPU library: neither ",
          beside.string(),
          " nor ",
          kName,
          " in the loader's folders (",
          failure.what(),
          "): build where nvcc, cuBLAS and NCCL are, or set PRAETOR_CUDA_LIBRARY to its path");
    }
  }();
  return *kLibrary;
}

}  // namespace praetor::cuda
