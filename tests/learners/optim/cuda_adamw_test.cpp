#include <ATen/ATen.h>

#include <cmath>
#include <vector>

#include "core/cuda/kernels/adamw.h"
#include "learners/optim/adamw.h"
#include "tests/support/catch.h"
#include "tests/support/processor_device.h"

namespace praetor {

TEST_CASE("the GPU's AdamW has the bits of the learners'", "[learners][cpu][cuda]") {
  at::manual_seed(1);
  const int64_t count = 2500;  // three blocks, the last not full
  OptimizerConfig config;
  config.weight_decay = 0.1;
  config.beta2 = 0.95;
  at::Tensor weight = at::randn({count});
  at::Tensor own = weight.clone(), mean = at::zeros({count}), square = at::zeros({count});
  at::Tensor copy = at::zeros({count}, at::kBFloat16);
  weight.set_requires_grad(true);
  AdamW adamw({{"linear.weight", weight}}, config);
  for (int64_t step = 1; step <= 3; ++step) {
    const double rate = 0.01 / static_cast<double>(step);
    const at::Tensor grad = at::randn({count});
    weight.mutable_grad() = grad;
    adamw.step(rate);
    auto kernel = cuda::AdamWKernel::with(
        rate, config.beta1, config.beta2, config.eps, config.weight_decay, step);
    kernel.weight = own.mutable_data_ptr<float>();
    kernel.mean = mean.mutable_data_ptr<float>();
    kernel.square = square.mutable_data_ptr<float>();
    kernel.grad = grad.const_data_ptr<float>();
    kernel.copy = static_cast<cuda::Bfloat16*>(copy.mutable_data_ptr());
    kernel.count = count;
    testing::run_kernel(kernel, step == 2 ? 3 : 1);
    CHECK(at::equal(own, weight.detach()));
    CHECK(at::equal(mean, adamw.state()[0].tensor));
    CHECK(at::equal(square, adamw.state()[1].tensor));
    CHECK(at::equal(copy, own.to(at::kBFloat16)));
  }
}

}  // namespace praetor
