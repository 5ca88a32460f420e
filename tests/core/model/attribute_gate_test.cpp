#include "core/model/attribute_gate.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

namespace {

at::Tensor matrix(std::vector<double> values, int64_t columns) {
  return at::tensor(values, at::kDouble).view({-1, columns});
}

}  // namespace

TEST_CASE("a gate gives the softmax of its layers, scaled", "[core][cpu]") {
  // One hidden layer of two, ReLU((1, -2)) = (1, 0); logits (10, 0) / 10 = (1, 0).
  AttributeGate gate = AttributeGate::make(2, 2, 1, 2, testing::stream(1), at::kDouble);
  gate.weights[0].copy_(matrix({1, 0, 0, 1}, 2));
  gate.weights[1].copy_(matrix({10, 5, 0, 7}, 2));
  gate.scale.fill_(2);
  const at::Tensor g = gate(matrix({1, -2}, 2));
  CHECK(g[0][0].item<double>() == Approx(2 / (1 + std::exp(-1.0))));
  CHECK(g[0][1].item<double>() == Approx(2 / (1 + std::exp(1.0))));
  CHECK(gate.parameters().size() == 5);
  // Without hidden layers it is linear.
  CHECK(AttributeGate::make(3, 4, 0, 1, testing::stream(1)).weights.size() == 1);
  CHECK_THROWS_AS(AttributeGate::make(3, 0, 1, 8, testing::stream(1)), InvalidArgument);
}

TEST_CASE("what verbosity explains is taken out of every attribute", "[core][cpu]") {
  // r_v = (0, 1, 2, 3); r_0 = 2 r_v + (1, -1, -1, 1) has lambda 2, as the rest is orthogonal.
  const at::Tensor values = matrix({1, 0, 1, 1, 3, 2, 7, 3}, 2);
  AttributeGate gate = AttributeGate::make(2, 2, 0, 1, testing::stream(1), at::kDouble);
  CHECK(at::equal(gate.corrected(values), values));
  gate.verbosity = 1;
  gate.correction = verbosity_correction(values, 1);
  CHECK(gate.correction[0].item<double>() == Approx(2));
  CHECK(gate.correction[1].item<double>() == Approx(1));
  const at::Tensor left = gate.corrected(values);
  CHECK(at::allclose(left.select(1, 0), at::tensor({1.0, -1.0, -1.0, 1.0}, at::kDouble)));
  CHECK(left.select(1, 1).abs().max().item<double>() < 1e-12);  // nothing of itself
  // Of a constant there is nothing to take out.
  CHECK(verbosity_correction(matrix({1, 5, 2, 5}, 2), 1).abs().sum().item<double>() == 0);
}

TEST_CASE("a gate comes back from its folder, and one that does not fit is refused",
          "[core][cpu]") {
  const testing::TempDir dir;
  CHECK_FALSE(AttributeGate::in(dir.path()));
  AttributeGate gate = AttributeGate::make(6, 3, 2, 5, testing::stream(2));
  gate.verbosity = 2;
  gate.correction = at::tensor({0.5F, -1.0F, 1.0F});
  gate.save(dir.path());
  CHECK(AttributeGate::in(dir.path()));
  const AttributeGate back = AttributeGate::load(dir.path(), 6, 3);
  const at::Tensor hidden = at::randn({4, 6}, at::kFloat);
  CHECK(at::equal(back(hidden), gate(hidden)));
  CHECK(at::equal(back.corrected(hidden.slice(1, 0, 3)), gate.corrected(hidden.slice(1, 0, 3))));
  CHECK_THROWS_AS(AttributeGate::load(dir.path(), 7, 3), DataError);
  CHECK_THROWS_WITH(AttributeGate::load(dir.path(), 6, 4), Catch::Contains("layers.2.weight"));
  CHECK_THROWS_AS(AttributeGate::load(dir / "none", 6, 3), MissingInput);
}

TEST_CASE("a row of a gate has the same bits in any batch", "[core][cpu]") {
  const AttributeGate gate = AttributeGate::make(24, 5, 3, 32, testing::stream(3));
  const at::Tensor hidden = at::randn({17, 24}, at::kFloat);
  const at::Tensor all = gate(hidden);
  for (int64_t i = 0; i < 17; ++i) CHECK(at::equal(gate(hidden.slice(0, i, i + 1))[0], all[i]));
}

}  // namespace praetor
