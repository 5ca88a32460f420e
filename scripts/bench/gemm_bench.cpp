// Times ops::linear against LibTorch's product in this process, seconds a call and GFLOP/s, one
// line a size. usage: gemm_bench [THREADS [K [N]]]      (MKL_CBWR=AUTO,STRICT in the environment
// shows the strict product). Then narrow weights beside float32, and how long packing takes.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "core/model/kernels/isa.h"
#include "core/model/kernels/linear.h"
#include "core/model/ops.h"

namespace {

// Best of a few short rounds: other work on the machine only ever adds time.
double seconds(const std::function<void()>& call) {
  using Clock = std::chrono::steady_clock;
  call();
  double best = 1e9;
  for (int round = 0; round < 7; ++round) {
    const auto start = Clock::now();
    int calls = 0;
    std::chrono::duration<double> spent{};
    do {
      call();
      ++calls;
      spent = Clock::now() - start;
    } while (spent.count() < 0.01);
    best = std::min(best, spent.count() / calls);
  }
  return best;
}

using praetor::WeightKind;
using praetor::ops::kernels::linear;

constexpr WeightKind kKinds[] = {WeightKind::kFloat32, WeightKind::kBfloat16, WeightKind::kInt8};

void narrow_products(const at::Tensor& x, const at::Tensor& weight) {
  double whole = 0;
  for (const auto isa : praetor::ops::kernels::available_isas()) {
    if (isa == praetor::ops::kernels::Isa::kScalar) continue;
    praetor::ops::kernels::use_isa(isa);
    std::printf("       %s:", praetor::ops::kernels::table().name);
    for (const WeightKind kind : kKinds) {
      const double spent = seconds([&] { linear(x, weight, {}, kind); });
      if (kind == WeightKind::kFloat32) whole = spent;
      std::printf("  %s %.1f us (%.2fx)", to_string(kind).c_str(), 1e6 * spent, whole / spent);
    }
    std::printf("\n");
  }
}

// What the first product after a change of the weight costs more than those that follow.
void packing(at::Tensor weight) {
  const at::Tensor x = at::randn({1, weight.size(1)});
  const double gigabytes = 4e-9 * static_cast<double>(weight.numel());
  praetor::ops::kernels::use_isa(praetor::ops::kernels::available_isas().front());
  for (const WeightKind kind : kKinds) {
    const double spent = seconds([&] {
      weight.unsafeGetTensorImpl()->bump_version();
      linear(x, weight, {}, kind);
    });
    std::printf(
        "packing in %s: %.2f GB/s of float32\n", to_string(kind).c_str(), gigabytes / spent);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const at::NoGradGuard no_grad;
  at::set_num_threads(argc > 1 ? std::atoi(argv[1]) : 1);
  const int64_t k = argc > 2 ? std::atoll(argv[2]) : 1024,
                n = argc > 3 ? std::atoll(argv[3]) : 1024;
  const at::Tensor weight = at::randn({n, k});
  for (const int64_t m : {1, 2, 4, 8, 14, 16, 64, 256, 512}) {
    const at::Tensor x = at::randn({m, k});
    const double flops = 2e-9 * static_cast<double>(m * n * k);
    std::printf(
        "m %4ld k %ld n %ld:", static_cast<long>(m), static_cast<long>(k), static_cast<long>(n));
    const double library = seconds([&] { at::mm(x, weight.t()); });
    std::printf(" libtorch %6.1f", flops / library);
    for (const auto isa : praetor::ops::kernels::available_isas()) {
      if (isa == praetor::ops::kernels::Isa::kScalar) continue;
      praetor::ops::kernels::use_isa(isa);
      const double ours = seconds([&] { praetor::ops::linear(x, weight); });
      std::printf(
          "  %s %6.1f (%.2fx)", praetor::ops::kernels::table().name, flops / ours, library / ours);
    }
    std::printf(" GFLOP/s\n");
    narrow_products(x, weight);
  }
  packing(weight);
}
