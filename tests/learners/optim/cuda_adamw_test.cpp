#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "core/cuda/kernels/adamw.h"
#include "learners/optim/optimizer.h"
#include "learners/optim/rounding.h"
#include "tests/support/catch.h"
#include "tests/support/processor_device.h"

namespace praetor {
namespace {

constexpr int64_t kCount = 2500;  // three blocks, the last not full
constexpr int64_t kSeed = 7;

/// Steps a part of a parameter, which begins at `first`, beside the learners' AdamW on the CPU.
/// @param launch  of moments in `states`: (step's factors, weight, grad, mean, square, step)
template <typename Launch>
void check_same(at::ScalarType states, int64_t first, Launch launch) {
  at::manual_seed(1);
  OptimizerConfig config;
  config.weight_decay = 0.1;
  config.beta2 = 0.95;
  config.state_dtype = states;
  config.seed = kSeed;
  const std::vector<NamedTensor> whole{{"linear.weight", at::randn({first + kCount + 1})}};
  const at::Tensor weight = whole[0].tensor.slice(0, first, first + kCount).clone();
  const std::string name = str("linear.weight@", first, "-", first + kCount);
  const auto adamw =
      make_optimizer({.name = "policy", .parameters = whole, .owned = {{name, weight}}}, config);
  at::Tensor own = weight.clone(), mean = at::zeros({kCount}, states), square = mean.clone();
  for (int64_t step = 1; step <= 3; ++step) {
    const double rate = 0.01 / static_cast<double>(step);
    const at::Tensor grad = at::randn({kCount});
    weight.mutable_grad() = grad;
    adamw->step(rate);
    launch(cuda::AdamWStep<float>::of(
               rate, config.beta1, config.beta2, config.eps, config.weight_decay, step),
           own,
           grad,
           mean,
           square,
           step);
    CHECK(at::equal(own, weight));
    CHECK(at::equal(mean, adamw->state()[0].tensor));
    CHECK(at::equal(square, adamw->state()[1].tensor));
  }
}

}  // namespace

TEST_CASE("the GPU's AdamW has the bits of the learners'", "[learners][cpu][cuda]") {
  check_same(at::kFloat,
             0,
             [](const cuda::AdamWStep<float>& by,
                const at::Tensor& weight,
                const at::Tensor& grad,
                const at::Tensor& mean,
                const at::Tensor& square,
                int64_t step) {
               cuda::AdamWKernel kernel{.by = by,
                                        .weight = weight.mutable_data_ptr<float>(),
                                        .mean = mean.mutable_data_ptr<float>(),
                                        .square = square.mutable_data_ptr<float>(),
                                        .grad = grad.const_data_ptr<float>(),
                                        .count = kCount};
               testing::run_kernel(kernel, step == 2 ? 3 : 1);
             });
}

TEST_CASE(
    "the GPU's AdamW rounds moments in bfloat16 as the learners' does, wherever a part begins",
    "[learners][cpu][cuda]") {
  for (const int64_t first : {0, 1, 3, 4, 1023}) {
    CAPTURE(first);
    check_same(at::kBFloat16,
               first,
               [first](const cuda::AdamWStep<float>& by,
                       const at::Tensor& weight,
                       const at::Tensor& grad,
                       const at::Tensor& mean,
                       const at::Tensor& square,
                       int64_t step) {
                 cuda::CoarseAdamWKernel kernel{
                     .by = by,
                     .weight = weight.mutable_data_ptr<float>(),
                     .mean = static_cast<cuda::Bfloat16*>(mean.mutable_data_ptr()),
                     .square = static_cast<cuda::Bfloat16*>(square.mutable_data_ptr()),
                     .grad = grad.const_data_ptr<float>(),
                     .count = kCount,
                     .first = first,
                     .key = rounding_key(kSeed, 0, "policy/linear.weight"),
                     .step = step};
                 testing::run_kernel(kernel, step == 2 ? 3 : 1);
               });
  }
}

}  // namespace praetor
