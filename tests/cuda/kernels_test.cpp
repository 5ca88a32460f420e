#include <ATen/ATen.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "core/cuda/decoder.h"
#include "core/cuda/device.h"
#include "tests/cuda/gpu.h"
#include "tests/support/processor_device.h"

// What a GPU computes against the same kernels on threads of the processor, which other tests hold
// against core/model, the engine's sampler and the learners' optimizer.
namespace praetor {

using cuda::Bfloat16;
using cuda::Device;
using cuda::DeviceArray;
using testing::ProcessorDevice;

namespace {

DeviceArray<float> put(Device& device, const at::Tensor& x) {
  const at::Tensor from = x.to(at::kFloat).contiguous();
  DeviceArray<float> out(device, from.numel());
  out.upload(from.const_data_ptr<float>(), from.numel());
  return out;
}

DeviceArray<Bfloat16> put_halves(Device& device, const at::Tensor& x) {
  const at::Tensor from = x.to(at::kBFloat16).contiguous();
  DeviceArray<Bfloat16> out(device, from.numel());
  out.upload(static_cast<const Bfloat16*>(from.const_data_ptr()), from.numel());
  return out;
}

template <typename T>
DeviceArray<T> put(Device& device, const std::vector<T>& x) {
  DeviceArray<T> out(device, static_cast<int64_t>(x.size()));
  out.upload(x);
  return out;
}

at::Tensor get(const DeviceArray<float>& x) {
  const std::vector<float> values = x.download(x.size());
  return at::tensor(values, at::kFloat);
}

at::Tensor get(const DeviceArray<Bfloat16>& x) {
  std::vector<float> values;
  for (const Bfloat16 each : x.download(x.size())) values.push_back(cuda::to_float(each));
  return at::tensor(values, at::kFloat);
}

/// The same work on both, from the same random numbers.
void check_same(Device& gpu,
                const std::function<at::Tensor(Device&)>& work,
                double relative = 1.0 / 128,
                double absolute = 1e-5) {
  ProcessorDevice processor(gpu.description().multiprocessors);
  at::manual_seed(1);
  const at::Tensor wanted = work(processor);
  at::manual_seed(1);
  const at::Tensor got = work(gpu);
  CHECK(wanted.isfinite().all().item<bool>());
  CHECK(at::allclose(got, wanted, relative, absolute));
}

}  // namespace

TEST_CASE("a GPU's row kernels are the processor's", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  for (const int64_t width : {64, 1000, 4096}) {
    check_same(gpu, [&](Device& device) {
      const auto x = put(device, at::randn({5, width})), weight = put(device, at::randn({width}));
      DeviceArray<Bfloat16> y(device, 5 * width);
      device.launch(cuda::NormKernel{x.get(), weight.get(), nullptr, y.get(), 5, width, 1e-5F});
      return get(y);
    });
    check_same(gpu, [&](Device& device) {  // with a mean and a bias
      const auto x = put(device, at::randn({5, width}) + 2),
                 weight = put(device, at::randn({width}));
      const auto bias = put(device, at::randn({width}));
      DeviceArray<Bfloat16> y(device, 5 * width);
      device.launch(
          cuda::NormKernel{x.get(), weight.get(), nullptr, y.get(), 5, width, 1e-5F, bias.get()});
      return get(y);
    });
    check_same(
        gpu,
        [&](Device& device) {
          const auto x = put(device, at::randn({5, width})), y = put(device, at::randn({5, width}));
          const auto weight = put(device, at::randn({width}));
          device.launch(cuda::AddNormKernel{y.get(), weight.get(), x.get(), 5, width, 1e-5F});
          device.launch(cuda::AddBiasKernel{weight.get(), x.get(), 5, width});
          device.launch(cuda::SoftcapKernel{x.get(), 5 * width, 2.0F});
          return get(x);
        },
        1e-4,
        1e-5);
    check_same(gpu, [&](Device& device) {  // without a gate, with a bias
      const auto x = put(device, at::randn({3, width})), bias = put(device, at::randn({width}));
      DeviceArray<Bfloat16> y(device, 3 * width);
      device.launch(cuda::GatedKernel{x.get(), y.get(), 3, width, true, false, bias.get()});
      return get(y);
    });
    for (const bool gelu : {false, true}) {
      check_same(gpu, [&](Device& device) {
        const auto x = put(device, at::randn({3, 2 * width}) * 5);
        DeviceArray<Bfloat16> y(device, 3 * width);
        device.launch(cuda::GatedKernel{x.get(), y.get(), 3, width, gelu});
        return get(y);
      });
    }
  }
  check_same(gpu, [&](Device& device) {
    const auto table = put_halves(device, at::randn({9, 100}));
    const auto tokens = put(device, std::vector<int32_t>{8, 0, 3});
    DeviceArray<float> x(device, 300);
    device.launch(cuda::EmbedKernel{table.get(), tokens.get(), x.get(), 3, 100});
    return get(x);
  });
}

TEST_CASE("a GPU norms and rotates the heads of queries and keys as the processor", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  for (const bool normed : {false, true}) {
    check_same(gpu, [&](Device& device) {
      const int64_t heads = 8, kv_heads = 2, d = 64, half = 24, size = 16;
      const auto qkv = put(device, at::randn({2, (heads + 2 * kv_heads) * d}));
      const auto bias = put(device, at::randn({(heads + 2 * kv_heads) * d}));
      const at::Tensor angle = at::randn({40, half});
      const auto cos = put(device, angle.cos()), sin = put(device, angle.sin());
      const auto q_norm = put(device, at::randn({d})), k_norm = put(device, at::randn({d}));
      const auto turns = put(device, std::vector<int32_t>{7, 39});
      const auto positions = put(device, std::vector<int32_t>{7, 20});
      const auto blocks = put(device, std::vector<int32_t>{1, 0});
      DeviceArray<Bfloat16> keys(device, 2 * kv_heads * size * d), values(device, keys.size());
      device.launch(cuda::RotateStoreKernel{qkv.get(),
                                            bias.get(),
                                            cos.get(),
                                            sin.get(),
                                            turns.get(),
                                            positions.get(),
                                            blocks.get(),
                                            keys.get(),
                                            values.get(),
                                            {kv_heads, size, d},
                                            2,
                                            heads,
                                            half,
                                            normed ? q_norm.get() : nullptr,
                                            normed ? k_norm.get() : nullptr,
                                            1e-5F});
      return at::cat({get(qkv), get(keys), get(values)});
    });
  }
}

TEST_CASE("a GPU's products are the processor's", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  for (const int64_t rows : {1, 3, 64}) {
    for (const bool add : {false, true}) {
      check_same(
          gpu,
          [&](Device& device) {
            const auto x = put_halves(device, at::randn({rows, 96}));
            const auto weight = put_halves(device, at::randn({40, 96}));
            const auto y = put(device, at::randn({rows, 40}));
            device.multiply({x.get(), weight.get(), y.get(), rows, 96, 40, add});
            return get(y);
          },
          1e-4,
          1e-4);
    }
  }
}

TEST_CASE("a GPU's attention is the processor's", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  struct Shape {
    int64_t heads, kv_heads, d, splits, window = 0;
    float softcap = 0;
  };
  for (const Shape& s : {Shape{4, 2, 64, 1},
                         Shape{32, 8, 128, 4},
                         Shape{8, 1, 256, 3},
                         Shape{20, 1, 128, 2},
                         Shape{8, 4, 256, 2, 90, 50}}) {
    INFO(s.heads << " heads over " << s.kv_heads << ", " << s.d << " wide");
    check_same(gpu, [&](Device& device) {
      // Rows 0 to 9 are the end of a prompt of 300, row 10 is a sequence's 70th token.
      const int64_t size = 16, blocks = 30, rows = 11;
      const auto keys = put_halves(device, at::randn({blocks, s.kv_heads, size, s.d}));
      const auto values = put_halves(device, at::randn({blocks, s.kv_heads, size, s.d}));
      const int64_t stride = (s.heads + 2 * s.kv_heads) * s.d;
      const auto qkv = put(device, at::randn({rows, stride}));
      std::vector<int32_t> table(40), positions;
      for (int32_t i = 0; i < 20; ++i) table[static_cast<size_t>(i)] = 29 - i;
      for (int32_t i = 0; i < 5; ++i) table[static_cast<size_t>(20 + i)] = i;
      for (int32_t i = 0; i < 10; ++i) positions.push_back(290 + i);
      positions.push_back(69);
      std::vector<cuda::AttendTile> tiles;
      const auto most = static_cast<int32_t>(cuda::AttendKernel::tile_rows(s.heads, s.kv_heads));
      for (int32_t i = 0; i < 10; i += most) tiles.push_back({i, std::min(most, 10 - i), 0});
      tiles.push_back({10, 1, 1});
      const auto device_table = put(device, table), device_positions = put(device, positions);
      const auto device_tiles = put(device, tiles);
      DeviceArray<float> part(device, s.splits * rows * s.heads * s.d);
      DeviceArray<float> state(device, s.splits * rows * s.heads * 2);
      DeviceArray<Bfloat16> out(device, rows * s.heads * s.d);
      device.launch(cuda::AttendKernel{qkv.get(),
                                       stride,
                                       keys.get(),
                                       values.get(),
                                       {s.kv_heads, size, s.d},
                                       device_table.get(),
                                       20,
                                       device_positions.get(),
                                       device_tiles.get(),
                                       device_tiles.size(),
                                       s.heads,
                                       s.splits,
                                       static_cast<float>(1 / std::sqrt(double(s.d))),
                                       part.get(),
                                       state.get(),
                                       rows,
                                       s.window,
                                       s.softcap});
      device.launch(
          cuda::JoinKernel{part.get(), state.get(), out.get(), rows, s.heads, s.d, s.splits});
      return get(out);
    });
  }
}

TEST_CASE("a GPU draws the processor's tokens", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  for (const int64_t vocab : {100, 32000, 128256}) {
    at::manual_seed(1);
    const at::Tensor logits = at::randn({2, vocab}) * 3;
    std::vector<cuda::SampleSpec> specs;
    for (uint32_t i = 0; i < 24; ++i) {
      const double temperature = i % 6 == 0 ? 0 : 0.5 + 0.25 * (i % 4);
      specs.push_back(cuda::sample_spec(static_cast<int32_t>(i % 2),
                                        temperature,
                                        i % 3 == 1 ? 50 : 0,
                                        i % 4 >= 2 ? 0.9 : 1.0,
                                        i % 5 == 4 ? 0.02 : 0.0,
                                        {.job_seed = 5},
                                        i));
    }
    const auto draw = [&](Device& device) {
      const auto rows = put(device, logits);
      const auto wanted = put(device, specs);
      DeviceArray<cuda::SampleResult> out(device, static_cast<int64_t>(specs.size()));
      device.launch(cuda::SampleKernel{
          rows.get(), wanted.get(), out.get(), static_cast<int64_t>(specs.size()), vocab});
      return out.download(out.size());
    };
    ProcessorDevice processor;
    const auto wanted = draw(processor), got = draw(gpu);
    for (size_t i = 0; i < specs.size(); ++i) {
      CHECK(got[i].token == wanted[i].token);
      CHECK(got[i].sampled_logprob == Approx(wanted[i].sampled_logprob).margin(1e-6));
      CHECK(got[i].kept_mass == Approx(wanted[i].kept_mass));
    }
  }
}

/// Weights and moments after three steps.
template <typename Kernel, typename Moment>
at::Tensor after_adamw(Device& device, Kernel kernel) {
  kernel.count = 100003;
  const auto weight = put(device, at::randn({kernel.count}));
  const auto grad = put(device, at::randn({kernel.count}));
  DeviceArray<Moment> mean(device, kernel.count), square(device, kernel.count);
  kernel.weight = weight.get();
  kernel.grad = grad.get();
  kernel.mean = mean.get();
  kernel.square = square.get();
  for (int64_t step = 1; step <= 3; ++step) {
    kernel.by = cuda::AdamWStep<float>::of(1e-3, 0.9, 0.999, 1e-8, 0.1, step);
    if constexpr (requires { kernel.step; }) kernel.step = step;
    device.launch(kernel);
  }
  return at::cat({get(weight), get(mean), get(square)});
}

TEST_CASE("a GPU's AdamW has the processor's bits on either stream", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  const auto compute = cuda::Library::instance().open(0, cuda::Stream::kCompute);
  for (Device* const on : {&gpu, compute.get()}) {
    check_same(
        *on,
        [](Device& device) {
          return after_adamw<cuda::AdamWKernel, float>(device, cuda::AdamWKernel{});
        },
        0,
        0);
    check_same(
        *on,
        [](Device& device) {
          return after_adamw<cuda::CoarseAdamWKernel, Bfloat16>(
              device, cuda::CoarseAdamWKernel{.first = 2, .key = 0x0123456789abcdefU});
        },
        0,
        0);
  }
}

TEST_CASE("too much of a GPU's memory is refused with numbers", "[gpu]") {
  PRAETOR_REQUIRE_GPU(gpu);
  CHECK_THROWS_AS(gpu.allocate(int64_t{1} << 50), cuda::DeviceMemoryError);
  DeviceArray<float> after(gpu, 10);  // nothing is spoilt
  CHECK(after.download(10) == std::vector<float>(10));
}

}  // namespace praetor
