#include "learners/optim/rounding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>

#include "core/base/sha256.h"
#include "core/base/str.h"
#include "core/model/kernels/parallel.h"

namespace praetor {

uint64_t rounding_key(uint64_t job_seed, uint32_t stage, const std::string& parameter) {
  Sha256 digest;
  digest.update(str("stochastic rounding/", job_seed, "/", stage, "/", parameter));
  return std::stoull(digest.hex().substr(0, 16), nullptr, 16);
}

void rounding_bits(uint64_t key, int64_t step, int64_t first, int64_t count, uint32_t* bits) {
  int64_t i = 0;
  while (i < count) {
    const int64_t at = (first + i) % kRoundedTogether;
    const PhiloxWords drawn = rounding_words(key, step, (first + i) / kRoundedTogether);
    for (int64_t k = at; k < kRoundedTogether && i < count; ++k) bits[i++] = drawn.at[k];
  }
}

RoundingBits rounding_bits(
    uint64_t key, int64_t step, int64_t first, int64_t count, at::Device device) {
  constexpr int64_t kCost = 16;  // of an element, in multiply-adds
  const at::Tensor drawn = at::empty({count}, at::kInt);
  auto* const to = static_cast<uint32_t*>(drawn.mutable_data_ptr());
  ops::kernels::over_rows(count, kCost, [&](int64_t begin, int64_t end) {
    rounding_bits(key, step, first + begin, end - begin, to + begin);
  });
  const at::Tensor bits = drawn.to(device);
  return {bits.bitwise_and(0xffff), bits.bitwise_right_shift(16).bitwise_and_(0xffff)};
}

at::Tensor round_stochastically(const at::Tensor& x, const at::Tensor& random) {
  const at::Tensor bits = x.view(at::kInt);
  const at::Tensor finite = bits.bitwise_and(0x7f800000).ne(0x7f800000);
  // A NaN whose upper half says infinity would become one.
  const at::Tensor quiet = bits.bitwise_and(0x007fffff).ne(0).to(at::kInt).mul_(0x00400000);
  const at::Tensor chosen = at::where(finite, bits + random, bits.bitwise_or(quiet));
  return chosen.bitwise_right_shift(16).to(at::kShort).view(at::kBFloat16);
}

}  // namespace praetor
