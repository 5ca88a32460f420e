#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/model/named_tensor.h"
#include "core/model/safetensors.h"

namespace praetor {

/// Tensors that are read when and as far as they are wanted, so that what lies on a disk need not
/// be in memory as a whole. Const calls from any thread.
class TensorSource {
 public:
  struct Form {
    std::string name;
    at::ScalarType dtype = at::kFloat;
    std::vector<int64_t> shape;
    int64_t numel() const;
  };
  virtual ~TensorSource() = default;
  virtual const std::vector<Form>& forms() const = 0;
  /// Elements [begin, end) of the flattened forms()[i] into `to`, contiguous and of as many
  /// elements, in its dtype.
  virtual void read(size_t i, int64_t begin, int64_t end, const at::Tensor& to) const = 0;
};

/// Of tensors in memory.
std::unique_ptr<TensorSource> make_tensor_source(std::vector<NamedTensor> tensors);
/// Of all tensors of some files, in order. Keeps no more than 16 MB of what was read in memory.
std::unique_ptr<TensorSource> make_tensor_source(std::vector<SafetensorsFile> files);

}  // namespace praetor
