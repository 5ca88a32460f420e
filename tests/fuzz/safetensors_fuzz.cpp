// Any bytes as a safetensors file: opened, or refused by DataError; what opens lies within the
// file.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/base/error.h"
#include "core/model/safetensors.h"

namespace {

/// Puts the bytes where a path leads to them, without a disk.
std::string in_memory(const std::string& bytes) {
  static const int file = memfd_create("fuzz", 0);
  if (ftruncate(file, 0) != 0 ||
      pwrite(file, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    abort();
  return "/proc/self/fd/" + std::to_string(file);
}

void check(const std::string& bytes) {
  try {
    const praetor::SafetensorsFile file(in_memory(bytes));
    uint64_t total = 0;
    for (const auto& name : file.names()) {
      try {
        const at::Tensor tensor = file.tensor(name);
        total += tensor.nbytes();
        if (tensor.nbytes() > bytes.size()) abort();
        // Touch every byte, aligned for the type.
        volatile uint8_t sum = 0;
        const auto* from = static_cast<const uint8_t*>(tensor.const_data_ptr());
        for (size_t i = 0; i < tensor.nbytes(); ++i) sum = static_cast<uint8_t>(sum + from[i]);
        if (reinterpret_cast<uintptr_t>(from) % tensor.element_size() != 0) abort();
      } catch (const praetor::DataError&) {
        return;  // a BOOL that is neither 0 nor 1
      }
    }
    if (total > bytes.size() - 8) abort();
  } catch (const praetor::DataError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  check(bytes);
  // Once more with a length that fits the header, so that mutations reach beyond it.
  const size_t end = bytes.rfind('}');
  if (size > 8 && end != std::string::npos && end >= 8) {
    std::string fitted = bytes;
    const uint64_t header = end + 1 - 8;
    std::memcpy(fitted.data(), &header, sizeof(header));
    check(fitted);
  }
  return 0;
}
