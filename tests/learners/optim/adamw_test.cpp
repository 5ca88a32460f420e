#include "learners/optim/adamw.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "learners/optim/clip_grad.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

at::Tensor matrix(const nlohmann::json& rows) {
  if (!rows[0].is_array()) return testing::vec(rows.get<std::vector<double>>()).to(at::kFloat);
  std::vector<at::Tensor> out;
  for (const auto& row : rows) out.push_back(matrix(row));
  return at::stack(out);
}

}  // namespace

TEST_CASE("twelve clipped steps equal torch.optim.AdamW", "[learners][cpu]") {
  const auto golden = nlohmann::json::parse(read_file(testing::golden("optim.json")));
  std::vector<NamedTensor> parameters{{"layer.weight", matrix(golden["start"][0])},
                                      {"norm.weight", matrix(golden["start"][1])}};
  OptimizerConfig config{
      .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .max_grad_norm = 1.0};
  AdamW optimizer(parameters, config);
  const double steps = static_cast<double>(golden["gradients"].size());
  for (size_t step = 0; step < golden["gradients"].size(); ++step) {
    for (size_t i = 0; i < 2; ++i)
      parameters[i].tensor.mutable_grad() = matrix(golden["gradients"][step][i]);
    CHECK(clip_grad_norm(parameters, 1.0) ==
          Approx(golden["norms"][step].get<double>()).epsilon(1e-6));
    optimizer.step(1e-2 * static_cast<double>(step + 1) / steps);
    optimizer.zero_grad();
    CHECK_FALSE(parameters[0].tensor.grad().defined());
  }
  const auto state = optimizer.state();
  REQUIRE(state.size() == 4);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(at::allclose(parameters[i].tensor, matrix(golden["end"][i]), 1e-6, 1e-6));
    CHECK(state[2 * i].name == "exp_avg/" + parameters[i].name);
    CHECK(at::allclose(state[2 * i].tensor, matrix(golden["exp_avg"][i]), 1e-6, 1e-6));
    CHECK(at::allclose(state[2 * i + 1].tensor, matrix(golden["exp_avg_sq"][i]), 1e-6, 1e-6));
  }
}

TEST_CASE("a step moves the version counter and leaves tensors without gradient alone",
          "[learners][cpu]") {
  std::vector<NamedTensor> parameters{
      {"a", at::ones({3})}, {"b", at::ones({3}, at::kDouble)}, {"c", at::ones({3})}};
  AdamW optimizer(parameters, {.weight_decay = 0.5});
  parameters[0].tensor.mutable_grad() = at::ones({3});
  parameters[1].tensor.mutable_grad() = at::ones({3}, at::kDouble);
  const auto before = parameters[0].tensor._version();
  const auto untouched = parameters[2].tensor._version();
  optimizer.step(0.1);
  CHECK(parameters[0].tensor._version() > before);
  CHECK(parameters[2].tensor._version() == untouched);
  CHECK(at::equal(parameters[2].tensor, at::ones({3})));
  // First step: m/sqrt(v) = 1, so w = 1 (1 - 0.05) - 0.1.
  CHECK(parameters[1].tensor[0].item<double>() == Approx(0.85).epsilon(1e-6));
  CHECK(optimizer.steps() == 1);
}

TEST_CASE("a tensor that AdamW cannot update is named", "[learners][cpu]") {
  CHECK_THROWS_WITH(AdamW({{"half", at::ones({2}, at::kHalf)}}, OptimizerConfig{}),
                    Catch::Contains("half"));
  CHECK_THROWS_WITH(AdamW({{"t", at::ones({2, 3}).t()}}, OptimizerConfig{}),
                    Catch::Contains("contiguous"));
  CHECK_THROWS_WITH(AdamW({{"twice", at::ones({2})}, {"twice", at::ones({2})}}, OptimizerConfig{}),
                    Catch::Contains("twice"));
}

TEST_CASE("clipping scales to the norm wanted, and 0 leaves gradients alone", "[learners][cpu]") {
  std::vector<NamedTensor> parameters{
      {"a", at::zeros({11})}, {"b", at::zeros({1})}, {"none", at::zeros({1})}};
  parameters[0].tensor.mutable_grad() = at::zeros({11});
  parameters[0].tensor.grad()[10] = 3;
  parameters[1].tensor.mutable_grad() = at::full({1}, 4.0);
  CHECK(clip_grad_norm(parameters, 0) == 5);
  CHECK(grad_norm(parameters) == 5);
  CHECK(clip_grad_norm(parameters, 10) == 5);
  CHECK(grad_norm(parameters) == 5);
  CHECK(clip_grad_norm(parameters, 1) == 5);
  CHECK(grad_norm(parameters) == Approx(1).epsilon(1e-5));
}

}  // namespace praetor
