#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <functional>
#include <utility>
#include <vector>

#include "core/model/kernels/isa.h"
#include "core/model/ops.h"
#include "tests/support/catch.h"

// Gradients by the float32 kernels, on shapes that fill several of their blocks. That those of
// float64 are the finite differences' is ops_gradients_test.cpp's to say.
namespace praetor {
namespace {

using Op = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

std::vector<at::Tensor> gradients(const Op& op,
                                  const std::vector<at::Tensor>& inputs,
                                  at::ScalarType type = at::kFloat) {
  std::vector<at::Tensor> leaves, out;
  for (const auto& x : inputs)
    leaves.push_back(x.to(type, false, true).detach().set_requires_grad(true));
  const at::Tensor y = op(leaves);
  const at::Tensor weights = at::linspace(-1.0, 1.3, y.numel(), y.options()).cos().view_as(y);
  (y * weights).sum().backward();
  for (const auto& leaf : leaves) out.push_back(leaf.grad());
  return out;
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  return (x - y).norm().item<double>() / y.norm().item<double>();
}

/// Near float64's, and the same bits on every instruction set with one thread and with two.
void check(const Op& op, const std::vector<at::Tensor>& inputs) {
  const int threads_before = at::get_num_threads();
  const auto isa_before = ops::kernels::isa_in_use();
  const auto wide = gradients(op, inputs, at::kDouble), want = gradients(op, inputs);
  for (size_t i = 0; i < want.size(); ++i) {
    INFO("input " << i);
    CHECK(distance(want[i], wide[i]) < 3e-6);
  }
  for (const auto isa : ops::kernels::available_isas()) {
    ops::kernels::use_isa(isa);
    for (const int threads : {1, 2}) {
      at::set_num_threads(threads);
      INFO(ops::kernels::table().name << " with " << threads << " threads");
      const auto again = gradients(op, inputs);
      for (size_t i = 0; i < want.size(); ++i) CHECK(at::equal(again[i], want[i]));
    }
  }
  at::set_num_threads(threads_before);
  ops::kernels::use_isa(isa_before);
}

std::vector<at::Tensor> heads_of(int64_t tokens, int64_t heads, int64_t kv_heads, int64_t d) {
  return {at::randn({tokens, heads, d}),
          at::randn({tokens, kv_heads, d}),
          at::randn({tokens, kv_heads, d})};
}

}  // namespace

TEST_CASE("the gradients of attention are float64's for every shape of heads", "[core][cpu][ops]") {
  at::manual_seed(1);
  for (const int64_t d : {2, 20, 32, 40, 64}) {
    for (const auto& [heads, kv_heads] :
         std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {8, 4}, {3, 3}}) {
      INFO("head_dim " << d << " heads " << heads << " kv_heads " << kv_heads);
      const std::vector<int64_t> offsets{0, 130, 131, 131, 190};
      check([&](const auto& x) { return ops::causal_attention(x[0], x[1], x[2], offsets); },
            heads_of(190, heads, kv_heads, d));
    }
  }
}

TEST_CASE("the gradients of attention with a window, a cap and a scale are float64's",
          "[core][cpu][ops]") {
  at::manual_seed(2);
  for (const ops::AttentionOptions& how : std::vector<ops::AttentionOptions>{
           {.window = 2}, {.window = 33}, {.softcap = 1.5}, {.scale = 0.3, .window = 70}}) {
    INFO("window " << how.window << " cap " << how.softcap << " scale " << how.scale);
    check(
        [&](const auto& x) {
          return ops::causal_attention(x[0], x[1], x[2], {0, 150, 200}, how);
        },
        heads_of(200, 4, 2, 24));
  }
}

TEST_CASE("a shared prefix gets what whole sequences would give it", "[core][cpu][ops]") {
  at::manual_seed(3);
  // A prefix of 70 rows, then 33, 0 and 1 rows that go on after it, and one by itself.
  const auto inputs = heads_of(114, 4, 2, 16);
  const std::vector<int64_t> offsets{0, 70, 103, 103, 104, 114}, prefix{-1, 0, 0, 0, -1};
  const Op packed = [&](const auto& x) {
    return ops::causal_attention(x[0], x[1], x[2], offsets, {}, prefix);
  };
  check(packed, inputs);
  const Op whole = [&](const auto& x) {
    const auto joined = [&](const at::Tensor& y, int64_t begin, int64_t end) {
      return at::cat({y.slice(0, 0, 70), y.slice(0, begin, end)});
    };
    const auto after = [&](int64_t begin, int64_t end) {
      return ops::causal_attention(joined(x[0], begin, end),
                                   joined(x[1], begin, end),
                                   joined(x[2], begin, end),
                                   {0, 70 + end - begin})
          .slice(0, 70);
    };
    const auto alone = [&](int64_t begin, int64_t end) {
      return ops::causal_attention(x[0].slice(0, begin, end),
                                   x[1].slice(0, begin, end),
                                   x[2].slice(0, begin, end),
                                   {0, end - begin});
    };
    return at::cat({alone(0, 70), after(70, 103), after(103, 104), alone(104, 114)});
  };
  const auto a = gradients(packed, inputs), b = gradients(whole, inputs);
  for (size_t i = 0; i < a.size(); ++i) CHECK(distance(a[i], b[i]) < 1e-6);
}

TEST_CASE("the gradients of norms and activations are float64's over many rows",
          "[core][cpu][ops]") {
  at::manual_seed(4);
  for (const int64_t n : {1, 7, 16, 33, 256}) {
    INFO(n << " columns");
    const std::vector<at::Tensor> two{at::randn({300, n}) * 3, at::randn({300, n})};
    const std::vector<at::Tensor> normed{at::randn({300, n}) * 3, at::randn({n})};
    for (const double offset : {0.0, 1.0}) {
      check([&](const auto& x) { return ops::rms_norm(x[0], x[1], 1e-5, offset); }, normed);
    }
    check([&](const auto& x) { return ops::swiglu(x[0], x[1]); }, two);
    check([&](const auto& x) { return ops::geglu(x[0], x[1]); }, two);
    check([&](const auto& x) { return ops::gelu(x[0]); }, {two[0]});
  }
}

TEST_CASE("the gradient of swiglu keeps its precision to both ends", "[core][cpu][ops]") {
  const at::Tensor gate = at::linspace(-80, 80, 4001).view({1, -1});
  const Op op = [&](const auto& x) { return ops::swiglu(x[0], at::ones_like(x[0])); };
  const auto got = gradients(op, {gate})[0].to(at::kDouble);
  const auto want = gradients(op, {gate}, at::kDouble)[0];
  CHECK((got - want).abs().sub(want.abs() * 2e-6).max().item<double>() < 1e-6);
}

}  // namespace praetor
