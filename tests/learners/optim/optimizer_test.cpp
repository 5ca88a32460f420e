#include "learners/optim/optimizer.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/threads.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

at::Tensor tensor_of(const nlohmann::json& rows) {
  if (!rows[0].is_array()) return testing::vec(rows.get<std::vector<double>>()).to(at::kFloat);
  std::vector<at::Tensor> out;
  for (const auto& row : rows) out.push_back(tensor_of(row));
  return at::stack(out);
}

/// Eight steps on a matrix and a vector against what the library got.
void check_golden(const std::string& name, OptimizerConfig config) {
  CAPTURE(name);
  const auto golden = nlohmann::json::parse(read_file(testing::golden("optimizers.json")));
  const std::vector<NamedTensor> parameters{{"matrix", tensor_of(golden["start"][0])},
                                            {"vector", tensor_of(golden["start"][1])}};
  config.learning_rate = golden["lr"].get<double>();
  const auto optimizer =
      make_optimizer({.parameters = parameters, .owned = parameters}, std::move(config));
  for (const auto& gradients : golden["gradients"]) {
    for (size_t i = 0; i < 2; ++i) parameters[i].tensor.mutable_grad() = tensor_of(gradients[i]);
    optimizer->step(optimizer->config().rate(0, optimizer->steps() + 1));
  }
  for (size_t i = 0; i < 2; ++i)
    CHECK(at::allclose(parameters[i].tensor, tensor_of(golden[name]["end"][i]), 1e-5, 1e-6));
  size_t compared = 0;
  for (const NamedTensor& state : optimizer->state()) {
    const size_t slash = state.name.find('/');
    const size_t i = state.name.substr(slash + 1) == "matrix" ? 0 : 1;
    std::string key = state.name.substr(0, slash);
    if (key == "momentum") key = "momentum_buffer";
    CAPTURE(state.name);
    const auto& wanted = golden[name]["state"][i];
    REQUIRE(wanted.contains(key));
    CHECK(at::allclose(state.tensor, tensor_of(wanted[key]), 1e-5, 1e-6));
    ++compared;
  }
  CHECK(compared == golden[name]["state"][0].size() + golden[name]["state"][1].size());
}

OptimizerConfig sgd(double momentum, bool nesterov, double decay) {
  return {.kind = "sgd", .weight_decay = decay, .momentum = momentum, .nesterov = nesterov};
}

OptimizerConfig adafactor() {
  return {.kind = "adafactor", .beta1 = 0};
}

std::vector<std::string> errors_of(const std::string& text) {
  const auto document = YamlDocument::parse(text, "run.yaml");
  OptimizerConfig::from_yaml(document->root());
  return document->errors();
}

void check_error(const std::string& text, const std::string& wanted) {
  const auto errors = errors_of(text);
  REQUIRE(errors.size() == 1);
  CHECK_THAT(errors[0], Catch::Contains(wanted));
}

}  // namespace

TEST_CASE("steps equal torch.optim.SGD's", "[learners][cpu]") {
  check_golden("sgd", sgd(0, false, 0));
  check_golden("sgd_decay", sgd(0, false, 0.1));
  check_golden("sgd_momentum", sgd(0.9, false, 0.1));
  check_golden("sgd_nesterov", sgd(0.9, true, 0.1));
}

TEST_CASE("steps equal transformers' Adafactor's", "[learners][cpu]") {
  check_golden("adafactor", adafactor());
  OptimizerConfig scaled = adafactor();
  scaled.scale_parameter = true;
  scaled.clip_threshold = 0.5;
  scaled.decay_rate = -0.5;
  scaled.weight_decay = 0.1;
  check_golden("adafactor_scaled", scaled);
  OptimizerConfig averaged = adafactor();
  averaged.beta1 = 0.9;
  averaged.eps_square = 1e-3;
  averaged.eps_scale = 1e-2;
  averaged.weight_decay = 0.1;
  check_golden("adafactor_momentum", averaged);
  OptimizerConfig relative = adafactor();
  relative.relative_step = relative.scale_parameter = true;
  check_golden("adafactor_relative", relative);
}

TEST_CASE("a matrix of 2 x 2 after one step of Adafactor, by hand", "[learners][cpu]") {
  // t = 1: b2 = 0. g = [[1, 1], [1, 3]]: r = (1, 5), c = (1, 5), mean(r) = 3, so that
  // u = g / sqrt(r c / 3) = [[sqrt 3, sqrt(3/5)], [sqrt(3/5), 3 sqrt 3 / 5]], whose mean square is
  // (3 + 0.6 + 0.6 + 1.08) / 4 = 1.32; clipped to 1: u / sqrt 1.32.
  const std::vector<NamedTensor> w{{"w", at::zeros({2, 2})}};
  const auto optimizer = make_optimizer({.parameters = w, .owned = w}, adafactor());
  w[0].tensor.mutable_grad() = at::tensor({1.0f, 1.0f, 1.0f, 3.0f}).view({2, 2});
  optimizer->step(0.1);
  const double by = -0.1 / std::sqrt(1.32);
  CHECK(w[0].tensor[0][0].item<double>() == Approx(std::sqrt(3.0) * by));
  CHECK(w[0].tensor[0][1].item<double>() == Approx(std::sqrt(0.6) * by));
  CHECK(w[0].tensor[1][1].item<double>() == Approx(std::sqrt(1.08) * by));
}

TEST_CASE("the number of threads moves no bit of a step", "[learners][cpu]") {
  const int before = threads();
  for (const std::string kind : {"adamw", "sgd", "adafactor"}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      CAPTURE(kind);
      OptimizerConfig config{.kind = kind, .beta1 = 0.9, .weight_decay = 0.1, .momentum = 0.9};
      config.state_dtype = dtype;
      const auto steps = [&](int count) {
        set_threads(count);
        at::manual_seed(1);
        const std::vector<NamedTensor> w{{"m", at::randn({700, 801})}, {"v", at::randn({801})}};
        const auto optimizer = make_optimizer({.parameters = w, .owned = w}, config);
        for (int step = 0; step < 2; ++step) {
          for (const NamedTensor& one : w)
            one.tensor.mutable_grad() = at::randn(one.tensor.sizes());
          optimizer->step(0.01);
        }
        return w[0].tensor.detach().clone();
      };
      CHECK(at::equal(steps(1), steps(3)));
    }
  }
  set_threads(before);
}

TEST_CASE("what decays, and how fast it learns, is chosen by name", "[learners][cpu]") {
  const auto document = YamlDocument::parse(
      "weight_decay: 0.1\n"
      "groups:\n"
      "  - {match: embed, weight_decay: 0.5}\n"
      "  - {match: q_proj, learning_rate_factor: 0.25}\n");
  OptimizerConfig config = OptimizerConfig::from_yaml(document->root());
  CHECK(document->errors().empty());
  CHECK(config.decay_of("model.embed_tokens.weight") == 0.5);
  CHECK(config.decay_of("model.layers.0.self_attn.q_proj.bias") == 0.1);  // its group says so
  CHECK(config.decay_of("model.layers.0.self_attn.k_proj.bias") == 0);
  CHECK(config.decay_of("model.layers.0.self_attn.k_proj.weight") == 0.1);
  CHECK(config.decay_of("model.norm.weight") == 0);
  config.no_decay = {};
  CHECK(config.decay_of("model.norm.weight") == 0.1);
  for (const std::string kind : {"adamw", "sgd", "adafactor"}) {
    config.kind = kind;
    config.groups = {{.match = "slow", .learning_rate_factor = 0.5}};
    config.weight_decay = 0;
    const std::vector<NamedTensor> w{{"slow", at::zeros({4, 4})}, {"fast", at::zeros({4, 4})}};
    const auto optimizer = make_optimizer({.parameters = w, .owned = w}, config);
    for (const NamedTensor& one : w) one.tensor.mutable_grad() = at::full({4, 4}, 0.5f);
    optimizer->step(0.1);
    CHECK(at::allclose(w[0].tensor * 2, w[1].tensor));
    CHECK(w[1].tensor[0][0].item<double>() < -0.01);
  }
  config.groups = {{.match = "nowhere"}};
  const std::vector<NamedTensor> w{{"fast", at::zeros({4})}};
  CHECK_THROWS_WITH(make_optimizer({.name = "policy", .parameters = w, .owned = w}, config),
                    Catch::Contains("policy") && Catch::Contains("\"nowhere\"") &&
                        Catch::Contains("optimizer.groups"));
}

TEST_CASE("each kind of optimizer reads its own keys", "[learners][cpu]") {
  CHECK(errors_of("{}").empty());
  CHECK(errors_of("{kind: sgd, momentum: 0.9, nesterov: true, state_dtype: bfloat16}").empty());
  CHECK(errors_of("{kind: adafactor, eps: [1e-30, 1e-3], relative_step: true}").empty());
  check_error("{kind: adam}",
              "run.yaml:1:8: kind: unknown value \"adam\", did you mean \"adamw\"?");
  check_error("{kind: sgd, beta2: 0.9}", "run.yaml:1:13: unknown key \"beta2\"");
  check_error("{momentum: 0.9}", "unknown key \"momentum\"");
  check_error("{kind: sgd, nesterov: true}", "run.yaml:1:23: nesterov: wants a momentum above 0");
  check_error("{kind: adafactor, eps: [1e-8]}", "eps: adafactor wants two numbers");
  check_error("{kind: adafactor, decay_rate: 0.8}", "decay_rate: 0.8 is outside [-1, 0)");
  check_error("{kind: adafactor, relative_step: true, learning_rate: 1e-3}",
              "learning_rate: relative_step makes the learning rate");
  check_error("{state_dtype: float16}", "state_dtype: unknown value \"float16\"");
  check_error("{kind: adafactor, state_dtype: bfloat16}",
              "state_dtype: adafactor keeps no state as large as the parameters without beta1");
  check_error("{kind: sgd, state_dtype: bfloat16}", "without momentum");
  check_error("{groups: [{weight_decay: 0}]}", "match");
  check_error("{groups: [{match: head, lr: 1}]}", "unknown key \"lr\"");
  check_error("{no_decay: ['']}", "no_decay: an empty word");
}

TEST_CASE("Adafactor's own learning rate falls with the root of the step", "[learners][cpu]") {
  OptimizerConfig config = adafactor();
  config.relative_step = true;
  CHECK(config.rate(7, 1) == 0.01);
  CHECK(config.rate(7, 10000) == 0.01);
  CHECK(config.rate(7, 40000) == 0.005);
  OptimizerConfig plain{.learning_rate = 0.5, .schedule = {.warmup_steps = 4}};
  CHECK(plain.rate(1, 9) == 0.25);
}

TEST_CASE("Adafactor names a parameter that is no matrix", "[learners][cpu]") {
  const std::vector<NamedTensor> w{{"cube", at::zeros({2, 2, 2})}};
  CHECK_THROWS_WITH(make_optimizer({.parameters = w, .owned = w}, adafactor()),
                    Catch::Contains("cube has 3 dimensions"));
}

}  // namespace praetor
