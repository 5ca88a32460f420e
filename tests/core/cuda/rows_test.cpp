#include "core/cuda/kernels/rows.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/model/ops.h"
#include "tests/support/catch.h"
#include "tests/support/processor_device.h"

namespace praetor {

using cuda::Bfloat16;
using testing::run_kernel;

namespace {

at::Tensor as_float(const std::vector<Bfloat16>& values, at::IntArrayRef shape) {
  at::Tensor out = at::empty(shape, at::kFloat);
  for (size_t i = 0; i < values.size(); ++i)
    out.mutable_data_ptr<float>()[i] = cuda::to_float(values[i]);
  return out;
}

/// Equal but for one rounding to bfloat16 of each.
bool close(const at::Tensor& a, const at::Tensor& b) {
  return at::allclose(a, b, 1.0 / 256, 1e-6);
}

}  // namespace

TEST_CASE("bfloat16 rounds as LibTorch's", "[core][cpu][cuda]") {
  at::manual_seed(1);
  at::Tensor x = at::randn({5000}) * at::exp(at::randn({5000}) * 20);
  x[0] = std::numeric_limits<float>::infinity();
  x[1] = 0.0F;
  x[2] = 1.00390625F;  // half way, to even: 1
  x[3] = 1.01171875F;  // half way, to even: 1.015625
  const at::Tensor wanted = x.to(at::kBFloat16).to(at::kFloat);
  int64_t different = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    different += cuda::to_float(cuda::to_bfloat16(x.const_data_ptr<float>()[i])) !=
                 wanted.const_data_ptr<float>()[i];
  }
  CHECK(different == 0);
  CHECK(wanted[2].item<float>() == 1.0F);
  CHECK(std::isnan(cuda::to_float(cuda::to_bfloat16(std::nanf("")))));
  const uint32_t pair = 0x40003F80;  // 2 above 1
  CHECK(cuda::low_of(pair) == 1.0F);
  CHECK(cuda::high_of(pair) == 2.0F);
}

TEST_CASE("the GPU's norm is the processor's, whatever the threads", "[core][cpu][cuda]") {
  at::manual_seed(2);
  for (const int64_t width : {8, 100, 1000}) {
    const at::Tensor x = at::randn({4, width}) * 3, weight = at::randn({width});
    const std::vector<int32_t> index = {2, 0, 3};
    const at::Tensor wanted = ops::rms_norm(x, weight, 1e-5);
    for (const int threads : {1, 5}) {
      std::vector<Bfloat16> all(static_cast<size_t>(4 * width)),
          some(static_cast<size_t>(3 * width));
      cuda::NormKernel kernel{x.const_data_ptr<float>(),
                              weight.const_data_ptr<float>(),
                              nullptr,
                              all.data(),
                              4,
                              width,
                              1e-5F};
      run_kernel(kernel, threads);
      CHECK(close(as_float(all, {4, width}), wanted));
      kernel.index = index.data();
      kernel.y = some.data();
      kernel.rows = 3;
      run_kernel(kernel, threads);
      CHECK(close(as_float(some, {3, width}),
                  wanted.index_select(0, at::tensor({2, 0, 3}, at::kLong))));
      const at::Tensor bias = at::randn({width});
      kernel.bias = bias.const_data_ptr<float>();
      run_kernel(kernel, threads);
      CHECK(at::allclose(
          as_float(some, {3, width}),
          ops::layer_norm(x, weight, bias, 1e-5).index_select(0, at::tensor({2, 0, 3}, at::kLong)),
          1.0 / 256,
          1e-5));
    }
  }
}

TEST_CASE("the GPU adds norms and biases to the residual stream, and caps logits",
          "[core][cpu][cuda]") {
  at::manual_seed(6);
  const at::Tensor x = at::randn({4, 300}), y = at::randn({4, 300}) * 5;
  const at::Tensor weight = at::randn({300}), bias = at::randn({300});
  for (const int threads : {1, 5}) {
    at::Tensor sum = x.clone();
    run_kernel(cuda::AddNormKernel{y.const_data_ptr<float>(),
                                   weight.const_data_ptr<float>(),
                                   sum.mutable_data_ptr<float>(),
                                   4,
                                   300,
                                   1e-5F},
               threads);
    CHECK(at::allclose(sum, x + ops::rms_norm(y, weight, 1e-5), 1e-5, 1e-6));
    run_kernel(
        cuda::AddBiasKernel{bias.const_data_ptr<float>(), sum.mutable_data_ptr<float>(), 4, 300},
        threads);
    CHECK(at::allclose(sum, x + ops::rms_norm(y, weight, 1e-5) + bias, 1e-5, 1e-6));
    at::Tensor logits = at::cat({y, at::randn({7, 300}) * 100});
    const at::Tensor wanted = ops::softcap(logits, 30);
    run_kernel(cuda::SoftcapKernel{logits.mutable_data_ptr<float>(), logits.numel(), 30}, threads);
    CHECK(at::allclose(logits, wanted, 1e-5, 1e-6));
  }
}

TEST_CASE("the GPU's gates are the processor's", "[core][cpu][cuda]") {
  at::manual_seed(3);
  const at::Tensor x = at::randn({3, 2 * 2500}) * 6;
  x[0][0] = -200.0F;
  x[0][1] = 200.0F;
  const at::Tensor gate = x.narrow(1, 0, 2500).contiguous(),
                   up = x.narrow(1, 2500, 2500).contiguous();
  std::vector<Bfloat16> y(3 * 2500);
  for (const int threads : {1, 4}) {
    run_kernel(cuda::GatedKernel{x.const_data_ptr<float>(), y.data(), 3, 2500, false}, threads);
    CHECK(close(as_float(y, {3, 2500}), ops::swiglu(gate, up)));
    run_kernel(cuda::GatedKernel{x.const_data_ptr<float>(), y.data(), 3, 2500, true}, threads);
    CHECK(at::allclose(as_float(y, {3, 2500}), ops::geglu(gate, up), 1.0 / 256, 1e-5));
    const at::Tensor bias = at::randn({2 * 2500});
    run_kernel(cuda::GatedKernel{x.const_data_ptr<float>(),
                                 y.data(),
                                 3,
                                 2500,
                                 false,
                                 true,
                                 bias.const_data_ptr<float>()},
               threads);
    CHECK(close(as_float(y, {3, 2500}),
                ops::swiglu(gate + bias.narrow(0, 0, 2500), up + bias.narrow(0, 2500, 2500))));
    std::vector<Bfloat16> plain(3 * 5000);
    run_kernel(cuda::GatedKernel{x.const_data_ptr<float>(),
                                 plain.data(),
                                 3,
                                 5000,
                                 true,
                                 false,
                                 bias.const_data_ptr<float>()},
               threads);
    CHECK(at::allclose(as_float(plain, {3, 5000}), ops::gelu(x + bias), 1.0 / 256, 1e-5));
  }
}

TEST_CASE("the GPU embeds tokens", "[core][cpu][cuda]") {
  const at::Tensor table = at::randn({7, 10}).to(at::kBFloat16);
  const std::vector<int32_t> tokens = {6, 0, 6};
  std::vector<float> x(30);
  run_kernel(
      cuda::EmbedKernel{
          static_cast<const Bfloat16*>(table.const_data_ptr()), tokens.data(), x.data(), 3, 10},
      3);
  const at::Tensor wanted = table.index_select(0, at::tensor({6, 0, 6}, at::kLong)).to(at::kFloat);
  CHECK(at::equal(at::from_blob(x.data(), {3, 10}), wanted));
  const at::Tensor places = at::randn({5, 10}).to(at::kBFloat16);
  const std::vector<int32_t> positions = {4, 0, 1};
  run_kernel(cuda::EmbedKernel{static_cast<const Bfloat16*>(table.const_data_ptr()),
                               tokens.data(),
                               x.data(),
                               3,
                               10,
                               3.0F,
                               static_cast<const Bfloat16*>(places.const_data_ptr()),
                               positions.data()},
             3);
  CHECK(at::allclose(
      at::from_blob(x.data(), {3, 10}),
      wanted * 3 + places.index_select(0, at::tensor({4, 0, 1}, at::kLong)).to(at::kFloat)));
}

TEST_CASE("the GPU rotates queries and keys and puts keys and values into their places",
          "[core][cpu][cuda]") {
  at::manual_seed(4);
  const int64_t heads = 4, kv_heads = 2, d = 16, rows = 3, size = 4, positions = 12;
  // All dimensions of a head are rotated, or the first ten of sixteen, or none; without norms of
  // the heads and with.
  for (const int64_t half : {8, 5, 0}) {
    for (const auto& [biased, normed] :
         std::vector<std::pair<bool, bool>>{{false, false}, {true, false}, {true, true}}) {
      at::Tensor qkv = at::randn({rows, (heads + 2 * kv_heads) * d});
      const at::Tensor bias = at::randn({(heads + 2 * kv_heads) * d});
      const at::Tensor angle = at::randn({positions, half});
      const at::Tensor cos = angle.cos(), sin = angle.sin();
      const std::vector<int32_t> position = {5, 6, 3}, turn = {1, 6, 11}, block = {2, 2, 0};
      const at::Tensor q_norm = at::randn({d}), k_norm = at::randn({d});
      const at::Tensor whole = (biased ? qkv + bias : qkv).view({rows, heads + 2 * kv_heads, d});
      const at::Tensor at_rows = at::tensor({1, 6, 11}, at::kLong);
      const auto rotated = [&](const at::Tensor& x) {
        const at::Tensor first = ops::rope(x.narrow(2, 0, 2 * half).contiguous(),
                                           cos.index_select(0, at_rows),
                                           sin.index_select(0, at_rows));
        return at::cat({first, x.narrow(2, 2 * half, d - 2 * half)}, 2);
      };
      const auto of_heads = [&](int64_t first, int64_t count, const at::Tensor& norm) {
        const at::Tensor part = whole.narrow(1, first, count).contiguous();
        return rotated(normed ? ops::rms_norm(part.view({-1, d}), norm, 1e-5).view(part.sizes())
                              : part);
      };
      const at::Tensor q = of_heads(0, heads, q_norm);
      const at::Tensor k = of_heads(heads, kv_heads, k_norm);
      const at::Tensor v = whole.narrow(1, heads + kv_heads, kv_heads);
      at::Tensor keys = at::zeros({3, kv_heads, size, d}, at::kBFloat16);
      at::Tensor values = at::zeros({3, kv_heads, size, d}, at::kBFloat16);
      run_kernel(cuda::RotateStoreKernel{qkv.mutable_data_ptr<float>(),
                                         biased ? bias.const_data_ptr<float>() : nullptr,
                                         cos.const_data_ptr<float>(),
                                         sin.const_data_ptr<float>(),
                                         turn.data(),
                                         position.data(),
                                         block.data(),
                                         static_cast<Bfloat16*>(keys.mutable_data_ptr()),
                                         static_cast<Bfloat16*>(values.mutable_data_ptr()),
                                         {kv_heads, size, d},
                                         rows,
                                         heads,
                                         half,
                                         normed ? q_norm.const_data_ptr<float>() : nullptr,
                                         normed ? k_norm.const_data_ptr<float>() : nullptr,
                                         1e-5F},
                 3);
      const auto same = [&](const at::Tensor& a, const at::Tensor& b) {
        return normed ? close(a.to(at::kFloat), b.to(at::kFloat)) : at::equal(a, b);
      };
      CHECK(same(qkv.view({rows, heads + 2 * kv_heads, d}).narrow(1, 0, heads), q));
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t place = position[static_cast<size_t>(r)] % size;
        const int64_t id = block[static_cast<size_t>(r)];
        CHECK(same(keys[id].select(1, place), k[r].to(at::kBFloat16)));
        CHECK(at::equal(values[id].select(1, place), v[r].to(at::kBFloat16)));
      }
      CHECK(keys.ne(0).any(-1).sum().item<int64_t>() == rows * kv_heads);
    }
  }
}

}  // namespace praetor
