#include "learners/optim/tensor_digest.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstddef>
#include <span>

#include "learners/optim/elements.h"

namespace praetor {
namespace {

int64_t bit_sum(const at::Tensor& flat) {
  const at::ScalarType bits = flat.element_size() == 8   ? at::kLong
                              : flat.element_size() == 4 ? at::kInt
                                                         : at::kShort;
  at::Tensor sum = at::zeros({}, flat.options().dtype(at::kLong));
  for (int64_t begin = 0; begin < flat.numel(); begin += kDeviceElements) {
    const int64_t end = std::min(begin + kDeviceElements, flat.numel());
    const at::Tensor odd =
        at::arange(2 * begin + 1, 2 * end + 1, 2, flat.options().dtype(at::kLong));
    sum.add_(odd.mul_(flat.slice(0, begin, end).view(bits).to(at::kLong)).sum());
  }
  return sum.item<int64_t>();
}

}  // namespace

void add_to_digest(Sha256& digest, const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().contiguous().view(-1);
  if (flat.is_cpu()) {
    digest.update(std::span(static_cast<const std::byte*>(flat.const_data_ptr()), flat.nbytes()));
    return;
  }
  const int64_t sum = bit_sum(flat);
  digest.update(std::as_bytes(std::span(&sum, 1)));
}

}  // namespace praetor
