#pragma once

#include <string>
#include <vector>

#include "core/model/families.h"
#include "core/model/named_tensor.h"

namespace praetor {

/// One tensor of a stored folder and the model's tensors that it holds.
struct StoredTensor {
  std::string name;                    ///< in the folder
  std::vector<ParameterSpec> parts;    ///< end to end along dimension 0
  bool transposed = false;             ///< what the folder holds is the transpose of that
  std::vector<int64_t> shape() const;  ///< in the folder
};

/// parameter_layout as a folder of the config's family stores it: fused tensors where their first
/// part stands.
std::vector<StoredTensor> stored_layout(const ModelConfig& config, bool with_head = true);

/// The model's tensors of one stored tensor, copied to `dtype`.
std::vector<NamedTensor> split_stored(const StoredTensor& stored,
                                      const at::Tensor& tensor,
                                      at::ScalarType dtype);

/// The stored tensor of `parts`, which are the model's tensors in the order of stored.parts.
at::Tensor join_stored(const StoredTensor& stored, const std::vector<at::Tensor>& parts);

}  // namespace praetor
