#include "core/model/weight_kind.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "core/base/error.h"
#include "core/model/engine_step.h"
#include "core/model/kernels/isa.h"
#include "core/model/kernels/linear.h"
#include "core/model/kernels/packed_weight.h"
#include "tests/support/catch.h"
#include "tests/support/tiny_model.h"

namespace praetor {
namespace {

using ops::kernels::available_isas;
using ops::kernels::linear;

/// Puts threads and instruction set back at the end of a test.
struct Settings {
  int threads = at::get_num_threads();
  ops::kernels::Isa isa = ops::kernels::isa_in_use();
  ~Settings() {
    at::set_num_threads(threads);
    ops::kernels::use_isa(isa);
  }
};

/// What a weight is held as: the values that rows of x meet in their chain, and what multiplies its
/// end.
struct Held {
  at::Tensor values;  // [N,K]
  at::Tensor scale;   // [N]
};

Held by_definition(const at::Tensor& weight, WeightKind kind) {
  Held out{weight.clone(), at::ones({weight.size(0)})};
  if (kind == WeightKind::kBfloat16) out.values = weight.to(at::kBFloat16).to(at::kFloat);
  if (kind != WeightKind::kInt8) return out;
  for (int64_t i = 0; i < weight.size(0); ++i) {
    const float most = weight[i].abs().max().item<float>();
    out.scale[i] = most / 127.0f;
    out.values[i] = (weight[i] * (most > 0 ? 127.0f / most : 0.0f)).round();  // ties to even
  }
  return out;
}

at::Tensor dequantised(const Held& held) {
  return held.values.to(at::kDouble) * held.scale.to(at::kDouble).unsqueeze(1);
}

const std::vector<WeightKind> kNarrow = {WeightKind::kBfloat16, WeightKind::kInt8};

}  // namespace

TEST_CASE("a kind of weights has a name, and no other is taken", "[core][cpu]") {
  for (const std::string& name : weight_kind_names())
    CHECK(to_string(weight_kind_of(name)) == name);
  CHECK_THROWS_WITH(weight_kind_of("fp8"),
                    "fp8 is no kind of weights; known: float32, bfloat16, int8");
}

TEST_CASE("products of narrow weights are those of the values they stand for", "[core][cpu][ops]") {
  at::manual_seed(1);
  const Settings settings;
  for (const int64_t k : {1, 7, 172, 1100}) {
    for (const int64_t n : {1, 17, 32, 70}) {
      const at::Tensor w = at::randn({n, k}), bias = at::randn({n});
      for (const WeightKind kind : kNarrow) {
        const Held held = by_definition(w, kind);
        for (const int64_t m : {1, 2, 5, 15, 28, 29, 60}) {
          const at::Tensor x = at::randn({m, k});
          const at::Tensor want =
              at::mm(x.to(at::kDouble), dequantised(held).t()) + bias.to(at::kDouble);
          for (const auto isa : available_isas()) {
            ops::kernels::use_isa(isa);
            INFO(to_string(kind) << " m " << m << " n " << n << " k " << k << " "
                                 << ops::kernels::table().name);
            // A chain of 1100 steps in float32 over values near 1.
            REQUIRE(at::allclose(linear(x, w, bias, kind).to(at::kDouble), want, 1e-5, 2e-4));
          }
        }
      }
    }
  }
}

TEST_CASE("products of narrow weights are one chain, times the scale, plus the bias",
          "[core][cpu][ops]") {
  at::manual_seed(2);
  const at::Tensor w = at::randn({40, 90}), x = at::randn({3, 90}), bias = at::randn({40});
  for (const WeightKind kind : kNarrow) {
    const Held held = by_definition(w, kind);
    const auto values = held.values.accessor<float, 2>(), rows = x.accessor<float, 2>();
    const at::Tensor y = linear(x, w, bias, kind);
    for (int64_t i = 0; i < 3; ++i) {
      for (int64_t j = 0; j < 40; ++j) {
        float sum = 0;
        for (int64_t k = 0; k < 90; ++k) sum = std::fma(rows[i][k], values[j][k], sum);
        sum = sum * held.scale[j].item<float>();
        REQUIRE(y[i][j].item<float>() == sum + bias[j].item<float>());
      }
    }
  }
}

TEST_CASE("a row of a narrow product depends on nothing but itself", "[core][cpu][ops]") {
  at::manual_seed(3);
  const Settings settings;
  const at::Tensor w = at::randn({384, 160}), x = at::randn({60, 160});
  for (const WeightKind kind : kNarrow) {
    at::set_num_threads(1);
    ops::kernels::use_isa(available_isas().front());
    std::vector<at::Tensor> alone;
    for (int64_t i = 0; i < 60; ++i) alone.push_back(linear(x.narrow(0, i, 1), w, {}, kind));
    const at::Tensor want = at::cat(alone, 0);
    for (const auto isa : available_isas()) {
      ops::kernels::use_isa(isa);
      for (const int threads : {1, 2}) {
        at::set_num_threads(threads);
        for (const int64_t m : {1, 2, 7, 14, 16, 29, 55})
          REQUIRE(at::equal(linear(x.narrow(0, 5, m), w, {}, kind), want.narrow(0, 5, m)));
        const at::Tensor order = at::randperm(60, at::kLong);
        CHECK(
            at::equal(linear(x.index_select(0, order), w, {}, kind), want.index_select(0, order)));
      }
    }
  }
}

TEST_CASE("a weight may lie in memory in every kind, each a half of the one before",
          "[core][cpu][ops]") {
  const auto bytes = [] { return ops::kernels::packed_weight_stats().bytes; };
  const at::Tensor w = at::randn({64, 100}), x = at::randn({1, 100});
  const int64_t before = bytes();
  linear(x, w, {}, WeightKind::kFloat32);
  CHECK(bytes() - before == 4 * 6400);
  linear(x, w, {}, WeightKind::kBfloat16);
  CHECK(bytes() - before == (4 + 2) * 6400);
  linear(x, w, {}, WeightKind::kInt8);
  CHECK(bytes() - before == (4 + 2 + 1) * 6400 + 4 * 64);
  ops::kernels::forget_packed_weights(w);
  CHECK(bytes() == before);
}

TEST_CASE("narrow weights follow a weight that is changed in place", "[core][cpu][ops]") {
  at::manual_seed(4);
  at::Tensor w = at::randn({40, 20});
  const at::Tensor x = at::randn({3, 20});
  for (const WeightKind kind : kNarrow) {
    const at::Tensor first = linear(x, w, {}, kind);
    const int64_t packings = ops::kernels::packed_weight_stats().packings;
    CHECK(at::equal(linear(x, w, {}, kind), first));
    CHECK(ops::kernels::packed_weight_stats().packings == packings);
    w.mul_(2.0);  // exactly, in every kind
    CHECK(at::equal(linear(x, w, {}, kind), first * 2));
    CHECK(ops::kernels::packed_weight_stats().packings == packings + 1);
  }
}

TEST_CASE("weights of zeros, of infinities and of NaN", "[core][cpu][ops]") {
  const float infinity = std::numeric_limits<float>::infinity();
  const at::Tensor x = at::ones({1, 20});
  at::Tensor w = at::ones({4, 20});
  w[0].zero_();
  w[1].fill_(1e-38f);
  w[2][7] = infinity;
  w[3][19] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor bfloat = linear(x, w, {}, WeightKind::kBfloat16)[0];
  CHECK(bfloat[0].item<float>() == 0);
  CHECK(bfloat[1].item<float>() == Approx(20e-38f).epsilon(0.01));
  CHECK(bfloat[2].item<float>() == infinity);
  CHECK(std::isnan(bfloat[3].item<float>()));
  // A row of int8 has one scale: nothing of it can be said.
  const at::Tensor bytes = linear(x, w, {}, WeightKind::kInt8)[0];
  CHECK(bytes[0].item<float>() == 0);
  CHECK(bytes[1].item<float>() == 0);
  CHECK(std::isnan(bytes[2].item<float>()));
  CHECK(std::isnan(bytes[3].item<float>()));
}

TEST_CASE("a model's logits in narrow weights stay near those in float32", "[core][cpu]") {
  const Transformer model = testing::tiny_model();
  const std::vector<int64_t> tokens = testing::random_tokens(20, 40, 5);
  const std::vector<int32_t> blocks{0, 1};
  CachedRows rows{.tokens = tokens, .sequence = std::vector<int32_t>(20, 0), .tables = {&blocks}};
  for (int32_t i = 0; i < 20; ++i) rows.positions.push_back(i);
  const auto logits_in = [&](WeightKind kind) {
    KvCache cache = model.make_cache(2);
    return logits(model, hidden_cached(model, rows, cache, {}, kind), kind);
  };
  const at::Tensor whole = logits_in(WeightKind::kFloat32);
  CHECK(at::equal(whole, model.logits(model.hidden(pack({tokens})))));
  const double size = whole.std().item<double>();
  const auto distance = [&](WeightKind kind) {
    return (logits_in(kind) - whole).square().mean().sqrt().item<double>() / size;
  };
  // A bfloat16 is wrong by at most 2^-9 of itself; an int8 by at most 1/254 of the largest of its
  // row, 1/100 of the row's spread. A product of a few dozen such averages to about that, layers
  // add up.
  CHECK(distance(WeightKind::kBfloat16) > 1e-5);
  CHECK(distance(WeightKind::kBfloat16) < 0.01);
  CHECK(distance(WeightKind::kInt8) > 1e-4);
  CHECK(distance(WeightKind::kInt8) < 0.1);
}

TEST_CASE("narrow weights are made of float32 models alone", "[core][cpu]") {
  const Transformer model(testing::tiny_config(), testing::stream(3), at::kDouble);
  CHECK_NOTHROW(check_weight_kind(model, WeightKind::kFloat32));
  CHECK_THROWS_WITH(check_weight_kind(model, WeightKind::kInt8),
                    Catch::Contains("weights of kind int8 are made of a float32 model"));
}

}  // namespace praetor
