// AdamW of LibTorch's tensors on a GPU, by the GPU library's kernel in LibTorch's own order.
#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "core/cuda/torch_library.h"
#include "learners/optim/optimizer.h"
#include "tests/cuda/gpu.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

/// Twenty steps of half a parameter, each of a gradient that is made just before and gone just
/// after, so that work out of order would show. @return the weights and their moments
std::vector<at::Tensor> stepped(at::Device device,
                                at::ScalarType states,
                                std::shared_ptr<cuda::Device> kernels) {
  constexpr int64_t kCount = int64_t{1} << 20;
  at::manual_seed(1);
  OptimizerConfig config;
  config.weight_decay = 0.1;
  config.state_dtype = states;
  config.kernels = std::move(kernels);
  const std::vector<NamedTensor> whole{{"w", at::randn({2 * kCount})}};
  const std::string name = str("w@", kCount - 3, "-", 2 * kCount - 5);
  const at::Tensor weight =
      whole[0].tensor.slice(0, kCount - 3, 2 * kCount - 5).to(device, at::kFloat, false, true);
  const auto optimizer =
      make_optimizer({.name = "policy", .parameters = whole, .owned = {{name, weight}}}, config);
  const at::Tensor from = at::randn({weight.numel()}).to(device);
  for (int step = 1; step <= 20; ++step) {
    weight.mutable_grad() = from * (1.0 / step);
    optimizer->step(0.01);
    optimizer->zero_grad();
    weight.mul_(1.0 - 1.0 / 1024);
  }
  std::vector<at::Tensor> out{weight.cpu()};
  for (const NamedTensor& state : optimizer->state()) out.push_back(state.tensor.cpu());
  return out;
}

}  // namespace

TEST_CASE("AdamW of LibTorch's tensors on a GPU has the processor's bits", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  try {
    cuda::require_torch_devices();
  } catch (const MissingInput& missing) {
    WARN("skipped: no GPU for LibTorch: " << missing.what());
    return;
  }
  const at::Device device(at::kCUDA, 0);
  const std::shared_ptr<cuda::Device> kernels =
      cuda::Library::instance().open(0, cuda::Stream::kCompute);
  for (const auto states : {at::kFloat, at::kBFloat16}) {
    CAPTURE(states);
    const auto wanted = stepped(at::kCPU, states, nullptr);
    for (const auto& by : {kernels, std::shared_ptr<cuda::Device>()}) {
      CAPTURE(by != nullptr);
      const auto got = stepped(device, states, by);
      for (size_t i = 0; i < wanted.size(); ++i) CHECK(at::equal(got[i], wanted[i]));
    }
  }
}

}  // namespace praetor
