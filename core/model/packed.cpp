#include "core/model/packed.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace praetor {

PackedTokens pack(const std::vector<std::vector<int64_t>>& sequences) {
  PackedTokens out;
  out.offsets.push_back(0);
  for (const auto& sequence : sequences) {
    out.offsets.push_back(out.offsets.back() + static_cast<int64_t>(sequence.size()));
  }
  out.tokens = at::empty({out.total()}, at::dtype(at::kLong));
  int64_t* to = out.tokens.mutable_data_ptr<int64_t>();
  for (const auto& sequence : sequences) to = std::copy(sequence.begin(), sequence.end(), to);
  return out;
}

}  // namespace praetor
