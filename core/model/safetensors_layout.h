#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/model/named_tensor.h"

namespace praetor {

/// Where everything of a safetensors file goes.
struct SafetensorsLayout {
  std::string head;                       ///< what stands before the data: length and header
  std::vector<const NamedTensor*> order;  ///< of the tensors; borrowed
  std::vector<uint64_t> offsets;          ///< of each of `order`, from the start of the file
  uint64_t bytes = 0;                     ///< of the file
};

/// As write_safetensors lays a file out. The head's length depends on the lengths of the metadata's
/// values alone, as long as they are plain ASCII. @throws InvalidArgument naming `file`
SafetensorsLayout lay_out_safetensors(const std::filesystem::path& file,
                                      std::span<const NamedTensor> tensors,
                                      const std::map<std::string, std::string>& metadata);

}  // namespace praetor
