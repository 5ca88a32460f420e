#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <functional>

#include "core/model/ops.h"
#include "core/model/ops_reference.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

using Op = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

at::Tensor random(at::IntArrayRef sizes, at::ScalarType dtype = at::kDouble) {
  return at::randn(sizes, at::TensorOptions().dtype(at::kDouble)).to(dtype);
}

// A scalar that depends on every element of the result in a different way.
at::Tensor weigh(const at::Tensor& y) {
  const at::Tensor weights =
      at::linspace(-1.0, 1.0, y.numel(), at::TensorOptions().dtype(at::kDouble))
          .add(0.3)
          .reshape(y.sizes());
  return (y.to(at::kDouble) * weights).sum();
}

std::vector<at::Tensor> gradients(const Op& op, const std::vector<at::Tensor>& inputs) {
  std::vector<at::Tensor> leaves, out;
  for (const auto& x : inputs) leaves.push_back(x.detach().clone().set_requires_grad(true));
  weigh(op(leaves)).backward();
  for (const auto& leaf : leaves) {
    out.push_back(leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf));
  }
  return out;
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  return (x - y).norm().item<double>() / (y.norm().item<double>() + 1e-9);
}

// Central differences in float64, then the float32 gradients against the float64 ones.
void check_gradients(const Op& op, std::vector<at::Tensor> inputs) {
  const auto analytic = gradients(op, inputs);
  const double h = 1e-5;
  for (size_t i = 0; i < inputs.size(); ++i) {
    at::Tensor numeric = at::zeros_like(inputs[i]);
    double* x = inputs[i].data_ptr<double>();
    for (int64_t j = 0; j < inputs[i].numel(); ++j) {
      const double was = x[j];
      x[j] = was + h;
      const double up = weigh(op(inputs)).item<double>();
      x[j] = was - h;
      const double down = weigh(op(inputs)).item<double>();
      x[j] = was;
      numeric.data_ptr<double>()[j] = (up - down) / (2 * h);
    }
    INFO("input " << i);
    CHECK(numeric.norm().item<double>() > 1e-6);
    CHECK(distance(analytic[i], numeric) < 1e-7);
  }
  std::vector<at::Tensor> floats;
  for (const auto& x : inputs) floats.push_back(x.to(at::kFloat));
  const auto single = gradients(op, floats);
  for (size_t i = 0; i < inputs.size(); ++i) {
    INFO("float32 input " << i);
    CHECK(single[i].scalar_type() == at::kFloat);
    CHECK(distance(single[i], analytic[i]) < 2e-5);
  }
}

at::Tensor ids(std::vector<int64_t> values) {
  return at::tensor(values, at::kLong);
}

}  // namespace

TEST_CASE("the gradients of linear are those of finite differences", "[core][cpu][ops]") {
  at::manual_seed(1);
  const Op op = [](const auto& x) { return ops::linear(x[0], x[1], x[2]); };
  check_gradients(op, {random({5, 7}), random({3, 7}), random({3})});
  const Op plain = [](const auto& x) { return ops::linear(x[0], x[1]); };
  check_gradients(plain, {random({1, 1}), random({17, 1})});
}

TEST_CASE("the gradients of rms_norm are those of finite differences", "[core][cpu][ops]") {
  at::manual_seed(2);
  const Op op = [](const auto& x) { return ops::rms_norm(x[0], x[1], 1e-5); };
  check_gradients(op, {random({4, 9}), random({9})});
}

TEST_CASE("the gradients of rms_norm of 1 + weight are those of finite differences",
          "[core][cpu][ops]") {
  at::manual_seed(12);
  const Op op = [](const auto& x) { return ops::rms_norm(x[0], x[1], 1e-5, 1); };
  check_gradients(op, {random({4, 9}), random({9})});
}

TEST_CASE("the gradients of layer_norm are those of finite differences", "[core][cpu][ops]") {
  at::manual_seed(13);
  const Op op = [](const auto& x) { return ops::layer_norm(x[0], x[1], x[2], 1e-5); };
  check_gradients(op, {random({4, 9}), random({9}), random({9})});
}

TEST_CASE("the gradients of gelu, geglu and softcap are those of finite differences",
          "[core][cpu][ops]") {
  at::manual_seed(14);
  check_gradients([](const auto& x) { return ops::gelu(x[0]); }, {random({4, 9})});
  check_gradients([](const auto& x) { return ops::geglu(x[0], x[1]); },
                  {random({4, 9}), random({4, 9})});
  check_gradients([](const auto& x) { return ops::softcap(x[0], 1.5); }, {random({4, 9})});
}

TEST_CASE("the gradients of swiglu are those of finite differences", "[core][cpu][ops]") {
  at::manual_seed(3);
  const Op op = [](const auto& x) { return ops::swiglu(x[0], x[1]); };
  check_gradients(op, {random({4, 9}), random({4, 9})});
}

TEST_CASE("the gradient of rope is that of finite differences", "[core][cpu][ops]") {
  at::manual_seed(4);
  const at::Tensor angle = random({3, 4});
  const Op op = [&](const auto& x) {
    const auto dtype = x[0].scalar_type();
    return ops::rope(x[0], angle.cos().to(dtype), angle.sin().to(dtype));
  };
  check_gradients(op, {random({3, 2, 8})});
}

TEST_CASE("the gradient of embedding adds repeated rows", "[core][cpu][ops]") {
  at::manual_seed(5);
  const Op op = [](const auto& x) { return ops::embedding(x[0], ids({2, 0, 2, 4})); };
  check_gradients(op, {random({5, 3})});
}

TEST_CASE("the gradients of causal attention are those of finite differences", "[core][cpu][ops]") {
  at::manual_seed(6);
  const Op op = [](const auto& x) {
    return ops::causal_attention(x[0], x[1], x[2], {0, 4, 4, 5, 8});
  };
  check_gradients(op, {random({8, 4, 6}), random({8, 2, 6}), random({8, 2, 6})});
  const Op shared = [](const auto& x) {
    return ops::causal_attention(
        x[0], x[1], x[2], {0, 3, 5, 5, 8, 9}, {.softcap = 2, .window = 4}, {-1, 0, 0, 0, -1});
  };
  check_gradients(shared, {random({9, 4, 6}), random({9, 2, 6}), random({9, 2, 6})});
}

TEST_CASE(
    "the gradients of attention with a window, a cap and a scale are those of finite "
    "differences",
    "[core][cpu][ops]") {
  at::manual_seed(15);
  for (const ops::AttentionOptions& options :
       {ops::AttentionOptions{.window = 3},
        ops::AttentionOptions{.window = 1},
        ops::AttentionOptions{.softcap = 1.5},
        ops::AttentionOptions{.scale = 0.7, .softcap = 2, .window = 4}}) {
    const Op op = [&](const auto& x) {
      return ops::causal_attention(x[0], x[1], x[2], {0, 7, 7, 8, 12}, options);
    };
    const bool alone = options.window == 1;  // a row that sees itself alone: its score says nothing
    if (!alone) {
      check_gradients(op, {random({12, 4, 6}), random({12, 2, 6}), random({12, 2, 6})});
      continue;
    }
    const auto out = gradients(op, {random({12, 4, 6}), random({12, 2, 6}), random({12, 2, 6})});
    CHECK(out[0].abs().max().item<double>() < 1e-12);
    CHECK(out[2].norm().item<double>() > 1);
  }
}

TEST_CASE("the gradient of log_softmax is that of finite differences", "[core][cpu][ops]") {
  at::manual_seed(7);
  const Op op = [](const auto& x) { return ops::log_softmax(x[0]); };
  check_gradients(op, {random({3, 11})});
}

TEST_CASE("the gradients of token_logprobs and its entropy are those of finite differences",
          "[core][cpu][ops]") {
  at::manual_seed(8);
  for (const double temperature : {1.0, 0.7}) {
    const auto run = [&](const auto& x, bool entropy) {
      return ops::token_logprobs(x[0], x[1], ids({1, 10, 4, 4}), temperature, entropy);
    };
    const Op logprob = [&](const auto& x) { return run(x, false).logprob; };
    const Op entropy = [&](const auto& x) { return run(x, true).entropy; };
    const Op both = [&](const auto& x) {
      const auto out = run(x, true);
      return out.logprob + 0.5 * out.entropy;
    };
    for (const Op& op : {logprob, entropy, both})
      check_gradients(op, {random({4, 6}), random({11, 6})});
  }
}

TEST_CASE("the gradients of token_logprobs of a capped head are those of finite differences",
          "[core][cpu][ops]") {
  at::manual_seed(16);
  for (const double temperature : {1.0, 0.7}) {
    const Op op = [&](const auto& x) {
      const auto out =
          ops::token_logprobs(x[0], {x[1], 1.3}, ids({1, 10, 4, 4}), temperature, true);
      return out.logprob + 0.5 * out.entropy;
    };
    check_gradients(op, {random({4, 6}), random({11, 6})});
  }
}

TEST_CASE("token_logprobs cut into chunks has the gradients of the whole", "[core][cpu][ops]") {
  at::manual_seed(9);
  const at::Tensor targets = at::randint(0, 33, {600}, at::kLong);
  const Op chunked = [&](const auto& x) {
    const auto out = ops::token_logprobs(x[0], x[1], targets, 0.9, true);
    return out.logprob - 0.1 * out.entropy;
  };
  const Op whole = [&](const auto& x) {
    const auto out = ops::reference::token_logprobs(x[0], x[1], targets, 0.9, true);
    return out.logprob - 0.1 * out.entropy;
  };
  const std::vector<at::Tensor> inputs{random({600, 8}), random({33, 8})};
  const auto a = gradients(chunked, inputs), b = gradients(whole, inputs);
  for (size_t i = 0; i < a.size(); ++i) CHECK(distance(a[i], b[i]) < 1e-12);
}

TEST_CASE("a gradient flows to the one input that asks for it", "[core][cpu][ops]") {
  at::manual_seed(10);
  const at::Tensor hidden = random({4, 6}), targets = ids({0, 1, 2, 3});
  at::Tensor head = random({5, 6}).set_requires_grad(true);
  ops::token_logprobs(hidden, head, targets).logprob.sum().backward();
  CHECK(head.grad().norm().item<double>() > 0);
  at::Tensor x = random({4, 6}).set_requires_grad(true);
  ops::linear(x, head.detach()).sum().backward();
  CHECK(x.grad().norm().item<double>() > 0);
  at::NoGradGuard no_grad;
  CHECK_FALSE(ops::linear(x, head).requires_grad());
}

TEST_CASE("the gradients of the kernels repeat bitwise", "[core][cpu][ops]") {
  at::manual_seed(11);
  const at::Tensor tokens = at::randint(0, 40, {300}, at::kLong);
  const Op op = [&](const auto& x) {
    const at::Tensor hidden = ops::rms_norm(ops::embedding(x[0], tokens), x[1], 1e-5);
    return ops::token_logprobs(hidden, x[0], tokens, 1.0, true).logprob;
  };
  const std::vector<at::Tensor> inputs{random({40, 24}, at::kFloat), random({24}, at::kFloat)};
  const auto a = gradients(op, inputs), b = gradients(op, inputs);
  for (size_t i = 0; i < a.size(); ++i) CHECK(at::equal(a[i], b[i]));
}

}  // namespace praetor
