#include "core/model/kernels/isa.h"

#include <algorithm>
#include <atomic>

#include "core/base/error.h"

namespace praetor::ops::kernels {
namespace {

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> isa{available_isas().front()};
  return isa;
}

}  // namespace

std::vector<Isa> available_isas() {
  std::vector<Isa> out;
  if (__builtin_cpu_supports("avx512f")) out.push_back(Isa::kAvx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) out.push_back(Isa::kAvx2);
  out.push_back(Isa::kScalar);
  return out;
}

const Table& table() {
  switch (isa_in_use()) {
    case Isa::kAvx512:
      return avx512_table();
    case Isa::kAvx2:
      return avx2_table();
    case Isa::kScalar:
      break;
  }
  return scalar_table();
}

void use_isa(Isa isa) {
  const auto have = available_isas();
  if (std::find(have.begin(), have.end(), isa) == have.end()) {
    throw InvalidArgument("this processor has no ",
                          isa == Isa::kAvx512 ? "AVX-512F" : "AVX2 and FMA");
  }
  chosen() = isa;
}

Isa isa_in_use() {
  return chosen();
}

}  // namespace praetor::ops::kernels
