#include "learners/algorithms/checks.h"

#include <ATen/ATen.h>

#include "core/base/error.h"

namespace praetor {

void require_same_shape(const char* function,
                        const at::Tensor& like,
                        std::initializer_list<std::pair<const char*, const at::Tensor&>> others) {
  for (const auto& [name, other] : others) {
    if (!other.defined()) throw ShapeError(function, ": ", name, " is not given");
    if (other.sizes() != like.sizes()) {
      throw ShapeError(function,
                       ": ",
                       name,
                       " is ",
                       c10::str(other.sizes()),
                       ", but wanted ",
                       c10::str(like.sizes()));
    }
  }
}

void require_ascending(const char* function, const at::Tensor& sequence_of) {
  if (sequence_of.dim() != 1 || sequence_of.scalar_type() != at::kLong) {
    throw ShapeError(function, ": sequence_of is not a vector of int64");
  }
  const at::Tensor host = sequence_of.to(at::kCPU).contiguous();
  const int64_t* ids = host.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < host.numel(); ++i) {
    if (ids[i] < (i > 0 ? ids[i - 1] : 0)) {
      throw ShapeError(
          function, ": sequence_of[", i, "] = ", ids[i], " is below what stands before it");
    }
  }
}

}  // namespace praetor
