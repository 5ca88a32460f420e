#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <functional>
#include <limits>

#include "core/base/error.h"
#include "core/model/kernels/isa.h"
#include "core/model/kernels/self_check.h"
#include "core/model/ops.h"
#include "core/model/ops_reference.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

/// Rows alone against rows among neighbours, on every instruction set and 1 and 2 threads.
void check_invariance(int64_t rows, const std::function<at::Tensor(const at::Tensor&)>& op) {
  const int threads_before = at::get_num_threads();
  const auto isa_before = ops::kernels::isa_in_use();
  std::vector<at::Tensor> alone;
  at::set_num_threads(1);
  for (int64_t i = 0; i < rows; ++i) alone.push_back(op(at::tensor({i}, at::kLong)));
  const at::Tensor want = at::cat(alone, 0);
  for (const auto isa : ops::kernels::available_isas()) {
    ops::kernels::use_isa(isa);
    for (const int threads : {1, 2}) {
      at::set_num_threads(threads);
      INFO(ops::kernels::table().name << " with " << threads << " threads");
      CHECK(at::equal(op(at::arange(rows, at::kLong)), want));
      const at::Tensor order = at::randperm(rows, at::kLong);
      CHECK(at::equal(op(order), want.index_select(0, order)));
    }
  }
  at::set_num_threads(threads_before);
  ops::kernels::use_isa(isa_before);
}

}  // namespace

TEST_CASE("row kernels agree with LibTorch at every length", "[core][cpu][ops]") {
  at::manual_seed(1);
  for (const int64_t n : {1, 7, 15, 16, 17, 33, 64, 172, 1000}) {
    INFO("n " << n);
    const at::Tensor x = at::randn({5, n}), y = at::randn({5, n}), w = at::randn({n});
    CHECK(
        at::allclose(ops::rms_norm(x, w, 1e-5), ops::reference::rms_norm(x, w, 1e-5), 1e-5, 1e-6));
    CHECK(at::allclose(
        ops::rms_norm(x, w, 1e-5, 1), ops::reference::rms_norm(x, w, 1e-5, 1), 1e-5, 1e-6));
    CHECK(at::allclose(ops::layer_norm(x * 3 + 1, w, y[0], 1e-5),
                       ops::reference::layer_norm(x * 3 + 1, w, y[0], 1e-5),
                       1e-5,
                       1e-5));
    CHECK(at::allclose(ops::swiglu(x * 5, y), ops::reference::swiglu(x * 5, y), 2e-6, 1e-7));
    CHECK(at::allclose(ops::gelu(x * 5), ops::reference::gelu(x * 5), 2e-6, 1e-6));
    CHECK(at::allclose(ops::geglu(x * 5, y), ops::reference::gelu(x * 5) * y, 2e-6, 2e-6));
    CHECK(at::allclose(ops::softcap(x * 9, 4), ops::reference::softcap(x * 9, 4), 1e-6, 1e-7));
    CHECK(at::allclose(ops::log_softmax(x * 9), ops::reference::log_softmax(x * 9), 1e-5, 1e-6));
  }
  for (const int64_t d : {2, 8, 16, 34, 64, 128}) {
    INFO("head_dim " << d);
    const at::Tensor x = at::randn({5, 3, d}), angle = at::randn({5, d / 2});
    const at::Tensor want = ops::reference::rope(x, angle.cos(), angle.sin());
    CHECK(at::allclose(ops::rope(x, angle.cos(), angle.sin()), want, 1e-6, 1e-6));
  }
}

TEST_CASE("row kernels treat each row by itself", "[core][cpu][ops]") {
  at::manual_seed(2);
  for (const int64_t n : {1, 17, 172, 40000}) {
    INFO("n " << n);
    const int64_t rows = n > 1000 ? 34 : 7;
    const at::Tensor x = at::randn({rows, n}) * 4, y = at::randn({rows, n}), w = at::randn({n});
    check_invariance(rows, [&](const at::Tensor& pick) {
      return ops::rms_norm(x.index_select(0, pick), w, 1e-6);
    });
    check_invariance(rows, [&](const at::Tensor& pick) {
      return ops::swiglu(x.index_select(0, pick), y.index_select(0, pick));
    });
    check_invariance(rows, [&](const at::Tensor& pick) {
      return ops::layer_norm(x.index_select(0, pick), w, y[0], 1e-6);
    });
    check_invariance(rows, [&](const at::Tensor& pick) {
      return ops::geglu(x.index_select(0, pick), y.index_select(0, pick));
    });
    check_invariance(rows,
                     [&](const at::Tensor& pick) { return ops::gelu(x.index_select(0, pick)); });
    check_invariance(
        rows, [&](const at::Tensor& pick) { return ops::softcap(x.index_select(0, pick), 3); });
    check_invariance(
        rows, [&](const at::Tensor& pick) { return ops::log_softmax(x.index_select(0, pick)); });
  }
  const at::Tensor x = at::randn({33, 4, 24}), angle = at::randn({33, 12});
  check_invariance(33, [&](const at::Tensor& pick) {
    const at::Tensor a = angle.index_select(0, pick);
    return ops::rope(x.index_select(0, pick), a.cos(), a.sin());
  });
}

TEST_CASE("swiglu does not depend on where in the row an element stands", "[core][cpu][ops]") {
  const at::Tensor gate = at::linspace(-90, 90, 1001).unsqueeze(0), up = at::ones({1, 1001});
  const at::Tensor whole = ops::swiglu(gate, up);
  for (const int64_t shift : {1, 5, 15, 983}) {
    const int64_t n = 1001 - shift;
    CHECK(at::equal(ops::swiglu(gate.narrow(1, shift, n), up.narrow(1, 0, n)),
                    whole.narrow(1, shift, n)));
  }
}

TEST_CASE("the exponential of swiglu keeps its precision to both ends", "[core][cpu][ops]") {
  const float inf = std::numeric_limits<float>::infinity();
  const at::Tensor gate =
      at::tensor({-85.0f, -40.0f, -1e-6f, 0.0f, 1e-6f, 30.0f, 88.0f, 1e30f, inf});
  const at::Tensor got = ops::swiglu(gate.unsqueeze(0), at::ones({1, gate.size(0)}))[0];
  for (int64_t i = 0; i < gate.size(0); ++i) {
    const double g = gate[i].item<double>();
    const double want = g / (1 + std::exp(-g));
    INFO("gate " << g);
    CHECK(got[i].item<double>() == Approx(want).epsilon(1e-6).margin(1e-43));
  }
  CHECK(ops::swiglu(at::tensor({-200.0f}).unsqueeze(0), at::ones({1, 1})).item<float>() == 0.0f);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(ops::swiglu(at::tensor({nan}).unsqueeze(0), at::ones({1, 1})).item<float>()));
}

TEST_CASE("softcap keeps its precision from the smallest to the largest", "[core][cpu][ops]") {
  const float inf = std::numeric_limits<float>::infinity();
  const at::Tensor x = at::tensor({-inf,
                                   -1e30f,
                                   -90.0f,
                                   -0.625f,
                                   -0.62499994f,
                                   -1e-6f,
                                   0.0f,
                                   1e-30f,
                                   0.3f,
                                   0.62499994f,
                                   0.625f,
                                   0.7f,
                                   3.0f,
                                   9.0f,
                                   1e30f,
                                   inf});
  const at::Tensor one = ops::softcap(x.unsqueeze(0), 1)[0];
  const at::Tensor four = ops::softcap(x.unsqueeze(0), 4)[0];
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double value = x[i].item<double>();
    INFO("x " << value);
    CHECK(one[i].item<double>() == Approx(std::tanh(value)).epsilon(2.5e-7).margin(1e-43));
    CHECK(four[i].item<double>() == Approx(4 * std::tanh(value / 4)).epsilon(2.5e-7).margin(1e-43));
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(ops::softcap(at::tensor({nan}).unsqueeze(0), 1).item<float>()));
  CHECK(ops::gelu(at::tensor({-1e30f}).unsqueeze(0)).item<float>() == 0.0f);
  CHECK(ops::gelu(at::tensor({1e30f}).unsqueeze(0)).item<float>() == 1e30f);
  CHECK_THROWS_AS(ops::softcap(x.unsqueeze(0), 0), InvalidArgument);
  CHECK_THROWS_AS(ops::gelu(x), ShapeError);
  CHECK_THROWS_AS(ops::layer_norm(x.unsqueeze(0), x, x.narrow(0, 0, 3), 1e-5), ShapeError);
  CHECK_THROWS_AS(ops::layer_norm(x.unsqueeze(0), x, x, -1), InvalidArgument);
}

TEST_CASE("log_softmax gives tokens at minus infinity no probability", "[core][cpu][ops]") {
  at::Tensor z = at::zeros({1, 20});
  z[0][3] = -std::numeric_limits<float>::infinity();
  const at::Tensor out = ops::log_softmax(z);
  CHECK(std::isinf(out[0][3].item<float>()));
  CHECK(out[0][19].item<float>() == Approx(-std::log(19.0)));
  z[0][7] = std::numeric_limits<float>::quiet_NaN();
  CHECK(ops::log_softmax(z).isnan().all().item<bool>());
}

TEST_CASE("log_softmax of bfloat16 is float32", "[core][cpu][ops]") {
  const at::Tensor z = at::randn({3, 9}).to(at::kBFloat16);
  const at::Tensor out = ops::log_softmax(z);
  CHECK(out.scalar_type() == at::kFloat);
  CHECK(at::allclose(out, ops::log_softmax(z.to(at::kFloat)), 1e-5, 1e-5));
}

TEST_CASE("embedding takes rows and refuses ids outside the table", "[core][cpu][ops]") {
  const at::Tensor table = at::arange(12, at::kFloat).reshape({4, 3});
  const at::Tensor out = ops::embedding(table, at::tensor({3, 0, 3}, at::kLong));
  CHECK(at::equal(out[0], table[3]));
  CHECK(at::equal(out[1], table[0]));
  CHECK(ops::embedding(table, at::empty({0}, at::kLong)).sizes() == at::IntArrayRef({0, 3}));
  CHECK_THROWS_WITH(ops::embedding(table, at::tensor({0, 4}, at::kLong)),
                    Catch::Contains("ids[1] is 4; wanted 0 to 3"));
  CHECK_THROWS_AS(ops::embedding(table, at::tensor({-1}, at::kLong)), InvalidArgument);
  CHECK_THROWS_AS(ops::embedding(table, at::tensor({1.0f})), ShapeError);
}

TEST_CASE("row kernels take no rows and refuse what does not fit", "[core][cpu][ops]") {
  CHECK(ops::rms_norm(at::zeros({0, 4}), at::ones({4}), 1e-5).size(0) == 0);
  CHECK(ops::swiglu(at::zeros({0, 4}), at::zeros({0, 4})).size(0) == 0);
  CHECK(ops::rope(at::zeros({0, 2, 4}), at::zeros({0, 2}), at::zeros({0, 2})).size(0) == 0);
  CHECK(ops::log_softmax(at::zeros({0, 4})).size(0) == 0);
  CHECK_THROWS_AS(ops::rms_norm(at::zeros({2, 4}), at::ones({5}), 1e-5), ShapeError);
  CHECK_THROWS_AS(ops::rms_norm(at::zeros({2, 4}), at::ones({4}), -1.0), InvalidArgument);
  CHECK_THROWS_AS(ops::swiglu(at::zeros({2, 4}), at::zeros({2, 5})), ShapeError);
  CHECK_THROWS_AS(ops::rope(at::zeros({2, 2, 3}), at::zeros({2, 1}), at::zeros({2, 1})),
                  ShapeError);
  CHECK_THROWS_AS(ops::rope(at::zeros({2, 2, 4}), at::zeros({2, 2}), at::zeros({2, 1})),
                  ShapeError);
  CHECK_THROWS_AS(ops::log_softmax(at::zeros({4})), ShapeError);
}

TEST_CASE("the self-check passes here and puts the settings back", "[core][cpu][ops]") {
  const int threads = at::get_num_threads();
  const auto isa = ops::kernels::isa_in_use();
  const auto report = ops::kernels_self_check();
  INFO(report.text());
  CHECK(report.passed);
  CHECK(report.failure.empty());
  CHECK(at::get_num_threads() == threads);
  CHECK(ops::kernels::isa_in_use() == isa);
  CHECK_THAT(report.text(), Catch::Contains("self-check passed in"));
}

}  // namespace praetor
