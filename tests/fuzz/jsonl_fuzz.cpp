#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/data/dataset.h"

namespace {

/// The file that every input is written to; in memory, so that the fuzzer is not slowed by a disk.
const std::filesystem::path& input_file() {
  static const std::filesystem::path kFile = [] {
    const int fd = static_cast<int>(::syscall(SYS_memfd_create, "input", 0u));
    return std::filesystem::path("/proc/self/fd/" + std::to_string(fd));
  }();
  return kFile;
}

void write_input(const uint8_t* data, size_t size) {
  const std::string& name = input_file().native();
  const int fd = std::stoi(name.substr(name.rfind('/') + 1));
  if (::ftruncate(fd, 0) != 0) __builtin_trap();
  if (::pwrite(fd, data, size, 0) != static_cast<ssize_t>(size)) __builtin_trap();
}

}  // namespace

/// First byte: which form the rows should have; the rest is the file. Rows that are accepted hold
/// well-formed text, and every refusal is a DataError that names a line.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto form = static_cast<praetor::RowForm>(data[0] % 3);
  write_input(data + 1, size - 1);
  try {
    for (const praetor::Row& row : praetor::read_rows(input_file(), form)) {
      for (const std::string& text :
           {row.prompt, row.completion, row.chosen, row.rejected, row.metadata}) {
        if (!praetor::is_utf8(text)) __builtin_trap();
      }
      if (row.line < 1 || row.metadata.front() != '{') __builtin_trap();
      if (row.prompt.empty() && row.messages.empty() && form != praetor::RowForm::kCompletion &&
          row.chosen.empty() && row.rejected.empty()) {
        __builtin_trap();
      }
    }
  } catch (const praetor::DataError& refusal) {
    if (std::string(refusal.what()).find("/proc/self/fd/") == std::string::npos) __builtin_trap();
  }
  return 0;
}
