// Optimizers of weights on another device (tests/support/emulated_device.h), against the CPU's.
#include <ATen/ATen.h>

#include "core/base/error.h"
#include "learners/optim/clip_grad.h"
#include "learners/optim/optimizer.h"
#include "learners/optim/rounding.h"
#include "learners/optim/tensor_digest.h"
#include "tests/support/catch.h"
#include "tests/support/emulated_kernels.h"

namespace praetor {
namespace {

using testing::emulated_device;

at::Tensor numbers(std::vector<int64_t> sizes, double phase) {
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  return (at::arange(count).to(at::kFloat) * 0.37 + phase).sin().view(sizes);
}

struct Run {
  std::vector<at::Tensor> weights;
  std::vector<Optimizer::HeldState> states;
};

/// Five steps of a matrix and a vector in parts that begin and end within rows.
Run stepped(OptimizerConfig config, at::Device device) {
  config.learning_rate = 0.01;
  config.weight_decay = 0.1;
  config.no_decay = {"bias"};
  const std::vector<NamedTensor> whole{{"matrix", numbers({7, 5}, 0)}, {"bias", numbers({6}, 1)}};
  std::vector<NamedTensor> owned;
  for (const auto& [name, begin, end] :
       {std::tuple{"matrix", 3, 22}, {"matrix", 22, 35}, {"bias", 0, 4}}) {
    const at::Tensor& from = whole[name == std::string("bias")].tensor;
    owned.push_back({std::string(name) + "@" + std::to_string(begin) + "-" + std::to_string(end),
                     from.view(-1).slice(0, begin, end).clone().to(device)});
  }
  const auto optimizer =
      make_optimizer({.name = "policy", .parameters = whole, .owned = owned}, std::move(config));
  for (int step = 0; step < 5; ++step) {
    for (size_t i = 0; i < owned.size(); ++i) {
      if (step == 2 && i == 1) continue;  // no gradient: it stays
      owned[i].tensor.mutable_grad() =
          (numbers({owned[i].tensor.numel()}, step + 0.5) * 0.1).to(device);
    }
    optimizer->step(0.01);
    optimizer->zero_grad();
  }
  Run out;
  for (const NamedTensor& piece : owned) out.weights.push_back(piece.tensor.cpu());
  out.states = optimizer->held_state();
  return out;
}

OptimizerConfig settings(const std::string& kind, at::ScalarType states = at::kFloat) {
  OptimizerConfig out;
  out.kind = kind;
  out.momentum = 0.9;
  out.state_dtype = states;
  return out;
}

}  // namespace

TEST_CASE("adamw and sgd step weights of a device to the CPU's bits", "[learners][cpu][device]") {
  for (const auto states : {at::kFloat, at::kBFloat16}) {
    for (OptimizerConfig config : {settings("adamw", states), settings("sgd", states)}) {
      for (const bool otherwise : {false, true}) {
        config.nesterov = otherwise;
        if (config.kind == "adamw" && otherwise) config.kernels = testing::emulated_kernels();
        CAPTURE(config.kind, states, otherwise);
        const int64_t kernels = testing::processor_adamw_kernels();
        const Run wanted = stepped(config, at::kCPU), got = stepped(config, emulated_device());
        for (size_t i = 0; i < wanted.weights.size(); ++i)
          CHECK(at::equal(got.weights[i], wanted.weights[i]));
        REQUIRE(got.states.size() == wanted.states.size());
        for (size_t i = 0; i < wanted.states.size(); ++i) {
          CHECK(got.states[i].tensor.device() == emulated_device());
          CHECK(got.states[i].tensor.scalar_type() == states);
          CHECK(at::equal(got.states[i].tensor.cpu(), wanted.states[i].tensor));
        }
        // One a piece and step; one piece has no gradient once.
        CHECK(testing::processor_adamw_kernels() - kernels == (config.kernels ? 14 : 0));
      }
    }
  }
  OptimizerConfig plain = settings("sgd");
  plain.momentum = 0;
  CHECK(
      at::equal(stepped(plain, emulated_device()).weights[0], stepped(plain, at::kCPU).weights[0]));
}

TEST_CASE("float64 weights of a device are stepped without the kernel", "[learners][cpu][device]") {
  const auto weight_after = [](at::Device device, std::shared_ptr<cuda::Device> kernels) {
    OptimizerConfig config = settings("adamw");
    config.kernels = std::move(kernels);
    const std::vector<NamedTensor> w{{"w", numbers({9}, 0).to(at::kDouble).to(device)}};
    const auto optimizer = make_optimizer({.parameters = w, .owned = w}, std::move(config));
    for (int step = 0; step < 3; ++step) {
      w[0].tensor.mutable_grad() = numbers({9}, step).to(at::kDouble).to(device);
      optimizer->step(0.01);
    }
    return w[0].tensor.cpu();
  };
  CHECK(at::equal(weight_after(emulated_device(), testing::emulated_kernels()),
                  weight_after(at::kCPU, nullptr)));
}

TEST_CASE("offloaded states stay in the processor's memory, and the weights have the CPU's bits",
          "[learners][cpu][device]") {
  for (const auto states : {at::kFloat, at::kBFloat16}) {
    for (OptimizerConfig config : {settings("adamw", states), settings("sgd", states)}) {
      const Run wanted = stepped(config, at::kCPU);
      config.offload = true;
      const Run got = stepped(config, emulated_device());
      for (size_t i = 0; i < wanted.weights.size(); ++i)
        CHECK(at::equal(got.weights[i], wanted.weights[i]));
      for (size_t i = 0; i < wanted.states.size(); ++i) {
        CHECK(got.states[i].tensor.is_cpu());
        CHECK(at::equal(got.states[i].tensor, wanted.states[i].tensor));
      }
      CHECK_THROWS_WITH(stepped(config, at::kCPU), Catch::Contains("is on the CPU"));
    }
  }
}

TEST_CASE("adafactor of weights on a device is the CPU's but for the order of sums",
          "[learners][cpu][device]") {
  for (const double beta1 : {0.0, 0.9}) {
    for (const bool scaled : {false, true}) {
      for (const auto states : {at::kFloat, at::kBFloat16}) {
        if (beta1 == 0 && states == at::kBFloat16) continue;
        OptimizerConfig config = settings("adafactor", states);
        config.beta1 = beta1;
        config.scale_parameter = scaled;
        CAPTURE(beta1, scaled, states);
        const Run wanted = stepped(config, at::kCPU), got = stepped(config, emulated_device());
        for (size_t i = 0; i < wanted.weights.size(); ++i)
          CHECK(at::allclose(got.weights[i], wanted.weights[i], 1e-5, 1e-6));
        for (size_t i = 0; i < wanted.states.size(); ++i) {
          CAPTURE(wanted.states[i].name);
          CHECK(at::allclose(got.states[i].tensor.cpu().to(at::kFloat),
                             wanted.states[i].tensor.to(at::kFloat),
                             states == at::kFloat ? 1e-5 : 1e-2,
                             1e-7));
        }
      }
    }
  }
}

TEST_CASE("stochastic rounding on a device chooses as on the CPU", "[learners][cpu][device]") {
  at::Tensor x = numbers({1000}, 0.2) * 1e3;
  x[0] = std::numeric_limits<float>::infinity();
  x[1] = std::numeric_limits<float>::quiet_NaN();
  x[2] = 0;
  x[3] = -std::numeric_limits<float>::max();
  std::vector<uint32_t> bits(1000);
  rounding_bits(7, 3, 11, 1000, bits.data());
  const RoundingBits there = rounding_bits(7, 3, 11, 1000, emulated_device());
  const at::Tensor got = round_stochastically(x.to(emulated_device()), there.high).cpu();
  CHECK(there.low.device() == emulated_device());
  for (int64_t i = 0; i < 1000; ++i) {
    const uint16_t wanted =
        round_stochastically(x[i].item<float>(), bits[static_cast<size_t>(i)] >> 16);
    REQUIRE(static_cast<const uint16_t*>(got.const_data_ptr())[i] == wanted);
  }
}

TEST_CASE("norm and digest of a device's gradients see every element", "[learners][cpu][device]") {
  const at::Tensor x = numbers({3, 5}, 0.1);
  const auto norm = [](const at::Tensor& gradient) {
    at::Tensor weight = at::zeros_like(gradient);
    weight.mutable_grad() = gradient;
    return grad_norm({{"w", weight}});
  };
  CHECK(norm(x.to(emulated_device())) == Approx(norm(x)).epsilon(1e-12));
  const auto digest = [](const at::Tensor& t) {
    Sha256 out;
    add_to_digest(out, t.to(emulated_device()));
    return out.hex();
  };
  CHECK(digest(x) == digest(x.clone()));
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    for (int64_t i = 0; i < x.numel(); ++i) {
      at::Tensor other = x.to(type).clone();
      other.view(-1)[i] = other.view(-1)[i].neg();
      CHECK(digest(other) != digest(x.to(type)));
    }
  }
  CHECK(digest(x) != digest(x.flip(0)));
}

}  // namespace praetor
