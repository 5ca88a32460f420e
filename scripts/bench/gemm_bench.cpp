// Times ops::linear against LibTorch's product in this process, seconds a call and GFLOP/s, one
// line a size. usage: gemm_bench [THREADS [K [N]]]      (MKL_CBWR=AUTO,STRICT in the environment
// shows the strict product)
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "core/model/kernels/isa.h"
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
  }
}
