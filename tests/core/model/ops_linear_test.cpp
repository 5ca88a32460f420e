#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "core/base/error.h"
#include "core/model/kernels/isa.h"
#include "core/model/kernels/packed_weight.h"
#include "core/model/ops.h"
#include "core/model/ops_reference.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

using ops::kernels::available_isas;
using ops::kernels::Isa;

/// Puts threads and instruction set back at the end of a test.
struct Settings {
  int threads = at::get_num_threads();
  Isa isa = ops::kernels::isa_in_use();
  ~Settings() {
    at::set_num_threads(threads);
    ops::kernels::use_isa(isa);
  }
};

// The promise, spelled out: one chain of fused multiply-adds, the bias at the end.
at::Tensor by_definition(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias) {
  at::Tensor y = at::empty({x.size(0), w.size(0)});
  const auto a = x.accessor<float, 2>(), b = w.accessor<float, 2>();
  auto out = y.accessor<float, 2>();
  for (int64_t i = 0; i < x.size(0); ++i) {
    for (int64_t j = 0; j < w.size(0); ++j) {
      float sum = 0;
      for (int64_t k = 0; k < x.size(1); ++k) sum = std::fma(a[i][k], b[j][k], sum);
      out[i][j] = bias.defined() ? sum + bias.accessor<float, 1>()[j] : sum;
    }
  }
  return y;
}

}  // namespace

TEST_CASE("a product is one chain of fused multiply-adds for every size", "[core][cpu][ops]") {
  at::manual_seed(1);
  const Settings settings;
  for (const int64_t k : {1, 7, 172, 300}) {
    for (const int64_t n : {1, 17, 32, 70, 512}) {
      const at::Tensor w = at::randn({n, k}), bias = at::randn({n});
      for (const int64_t m : {1, 2, 3, 5, 6, 7, 13, 14, 15, 16, 17, 23, 24, 28, 29, 100}) {
        const at::Tensor x = at::randn({m, k});
        const at::Tensor want = by_definition(x, w, bias);
        for (const Isa isa :
             {available_isas().front(), available_isas()[available_isas().size() > 1]}) {
          ops::kernels::use_isa(isa);
          INFO("m " << m << " n " << n << " k " << k << " " << ops::kernels::table().name);
          REQUIRE(at::equal(ops::linear(x, w, bias), want));
        }
      }
    }
  }
}

TEST_CASE("the scalar loops give the bits of the vector loops", "[core][cpu][ops]") {
  at::manual_seed(2);
  const Settings settings;
  const at::Tensor x = at::randn({9, 65}), w = at::randn({50, 65});
  ops::kernels::use_isa(Isa::kScalar);
  CHECK(at::equal(ops::linear(x, w), by_definition(x, w, {})));
}

TEST_CASE("inner sizes beyond a block and rows beyond a block keep the chain", "[core][cpu][ops]") {
  at::manual_seed(3);
  const Settings settings;
  const at::Tensor w = at::randn({40, 1100});
  const at::Tensor x = at::randn({700, 1100});
  const at::Tensor want = by_definition(x.narrow(0, 0, 20), w, {});
  for (const Isa isa : available_isas()) {
    if (isa == Isa::kScalar) continue;
    ops::kernels::use_isa(isa);
    for (const int threads : {1, 2}) {
      at::set_num_threads(threads);
      const at::Tensor y = ops::linear(x, w);
      CHECK(at::equal(y.narrow(0, 0, 20), want));
      CHECK(at::equal(y.narrow(0, 600, 100), ops::linear(x.narrow(0, 600, 100), w)));
      CHECK(at::equal(ops::linear(x.narrow(0, 0, 3), w), want.narrow(0, 0, 3)));
    }
  }
}

TEST_CASE("a row of a product does not depend on its neighbours, their order or the threads",
          "[core][cpu][ops]") {
  at::manual_seed(4);
  const Settings settings;
  const at::Tensor w = at::randn({384, 160}), x = at::randn({60, 160});
  at::set_num_threads(1);
  std::vector<at::Tensor> alone;
  for (int64_t i = 0; i < x.size(0); ++i) alone.push_back(ops::linear(x.narrow(0, i, 1), w));
  const at::Tensor want = at::cat(alone, 0);
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    for (int64_t m = 1; m <= 34; ++m) {
      REQUIRE(at::equal(ops::linear(x.narrow(0, 5, m), w), want.narrow(0, 5, m)));
    }
    const at::Tensor order = at::randperm(60, at::kLong);
    CHECK(at::equal(ops::linear(x.index_select(0, order), w), want.index_select(0, order)));
  }
}

TEST_CASE("linear agrees with LibTorch's product", "[core][cpu][ops]") {
  at::manual_seed(5);
  const at::Tensor x = at::randn({33, 172}), w = at::randn({65, 172}), bias = at::randn({65});
  const at::Tensor want = ops::reference::linear(x, w, bias);
  CHECK(at::allclose(ops::linear(x, w, bias), want, 1e-5, 1e-4));
  const at::Tensor strided = at::randn({33, 200}).narrow(1, 10, 172);
  CHECK(at::allclose(ops::linear(strided, w), ops::reference::linear(strided, w, {}), 1e-5, 1e-4));
  const at::Tensor turned = at::randn({172, 33}).t();
  CHECK(at::equal(ops::linear(turned, w), ops::linear(turned.contiguous(), w)));
  const at::Tensor turned_weight = at::randn({172, 65}).t();
  CHECK(at::equal(ops::linear(x, turned_weight), ops::linear(x, turned_weight.contiguous())));
}

TEST_CASE("products of nothing are empty, products over nothing are the bias", "[core][cpu][ops]") {
  CHECK(ops::linear(at::zeros({0, 4}), at::zeros({3, 4})).sizes() == at::IntArrayRef({0, 3}));
  CHECK(ops::linear(at::zeros({2, 4}), at::zeros({0, 4})).sizes() == at::IntArrayRef({2, 0}));
  const at::Tensor bias = at::tensor({1.0f, 2.0f});
  CHECK(at::equal(ops::linear(at::zeros({3, 0}), at::zeros({2, 0}), bias), bias.expand({3, 2})));
}

TEST_CASE("linear refuses tensors that do not fit", "[core][cpu][ops]") {
  const at::Tensor x = at::zeros({2, 4}), w = at::zeros({3, 4});
  CHECK_THROWS_AS(ops::linear(x, at::zeros({3, 5})), ShapeError);
  CHECK_THROWS_AS(ops::linear(at::zeros({4}), w), ShapeError);
  CHECK_THROWS_AS(ops::linear(x, w, at::zeros({4})), ShapeError);
  CHECK_THROWS_AS(ops::linear(x, w.to(at::kDouble)), ShapeError);
  CHECK_THROWS_AS(ops::linear(x, at::Tensor()), ShapeError);
  CHECK_THROWS_WITH(ops::linear(x, at::zeros({3, 5})), Catch::Contains("weight is Float [3, 5]"));
}

TEST_CASE("a weight changed in place is packed anew", "[core][cpu][ops]") {
  at::manual_seed(6);
  const at::Tensor x = at::randn({3, 20});
  at::Tensor w = at::randn({40, 20});
  const auto fresh = [&] { return by_definition(x, w, {}); };
  CHECK(at::equal(ops::linear(x, w), fresh()));
  const int64_t before = ops::kernels::packed_weight_stats().packings;
  CHECK(at::equal(ops::linear(x, w), fresh()));
  CHECK(ops::kernels::packed_weight_stats().packings == before);
  w.mul_(2.0);
  CHECK(at::equal(ops::linear(x, w), fresh()));
  w.detach().add_(1.0);
  CHECK(at::equal(ops::linear(x, w), fresh()));
  w.narrow(0, 3, 1).zero_();
  CHECK(at::equal(ops::linear(x, w), fresh()));
  w.data_ptr<float>()[5] = 7;
  w.unsafeGetTensorImpl()->bump_version();
  CHECK(at::equal(ops::linear(x, w), fresh()));
  CHECK(ops::kernels::packed_weight_stats().packings == before + 4);
}

TEST_CASE("memory that another tensor takes over is not mistaken for the old weight",
          "[core][cpu][ops]") {
  at::manual_seed(7);
  const at::Tensor x = at::randn({2, 64});
  const int64_t before = ops::kernels::packed_weight_stats().entries;
  std::vector<float> memory(64 * 64);
  for (int i = 0; i < 3; ++i) {
    const at::Tensor values = at::randn({64, 64});
    std::copy_n(values.const_data_ptr<float>(), memory.size(), memory.data());
    const at::Tensor w = at::from_blob(memory.data(), {64, 64});
    REQUIRE(at::equal(ops::linear(x, w), by_definition(x, values, {})));
  }
  CHECK(ops::kernels::packed_weight_stats().entries == before);
}

TEST_CASE("two slices of one storage are two weights", "[core][cpu][ops]") {
  at::manual_seed(8);
  const at::Tensor both = at::randn({2, 8, 16}), x = at::randn({4, 16});
  for (int repeat = 0; repeat < 2; ++repeat) {
    for (int64_t i = 0; i < 2; ++i) {
      CHECK(at::equal(ops::linear(x, both[i]), by_definition(x, both[i], {})));
    }
  }
}

TEST_CASE("threads share one packed weight", "[core][cpu][ops]") {
  at::manual_seed(9);
  const at::Tensor x = at::randn({4, 128}), w = at::randn({96, 128});
  const at::Tensor want = by_definition(x, w, {});
  const int64_t before = ops::kernels::packed_weight_stats().packings;
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) wrong[t] += !at::equal(ops::linear(x, w), want);
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4));
  CHECK(ops::kernels::packed_weight_stats().packings == before + 1);
}

TEST_CASE("the other float types go through LibTorch", "[core][cpu][ops]") {
  at::manual_seed(10);
  const at::Tensor x = at::randn({3, 8}), w = at::randn({5, 8});
  const at::Tensor y = ops::linear(x.to(at::kBFloat16), w.to(at::kBFloat16));
  CHECK(y.scalar_type() == at::kBFloat16);
  CHECK(at::allclose(y.to(at::kFloat), ops::linear(x, w), 0.05, 0.1));
}

}  // namespace praetor
