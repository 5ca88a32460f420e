#include "learners/algorithms/attribute_gate.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "learners/learner.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/groups.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::algorithm_from;
using testing::make_example;
using testing::metric;
using testing::vec;

namespace {

/// The prompt says which attribute counts: it ends in 2 or in 9.
std::vector<Example> rows() {
  return {make_example({1, 2}, {5, 3}),
          make_example({1, 2}, {6, 4}),
          make_example({1, 9}, {6, 4}),
          make_example({1, 9}, {5, 3}),
          make_example({2}, {}),
          make_example({2}, {7, 8, 4})};
}

RandomStream stream(uint64_t seed) {
  return RandomStream({.job_seed = seed, .purpose = Purpose::kInitialise});
}

Learner make_learner(int64_t micro_batch_tokens = 8192) {
  LearnerConfig settings;
  settings.optimizer.learning_rate = 1e-2;
  settings.micro_batch_tokens = micro_batch_tokens;
  LearnerModels models;
  models.scalar = testing::tiny_scalar();
  models.scalar->head = ScalarHead::make(16, stream(9), at::kFloat, 3);
  models.gate = std::make_unique<AttributeGate>(AttributeGate::make(16, 3, 1, 32, stream(4)));
  return Learner(settings, algorithm_from("attribute_gate"), std::move(models));
}

}  // namespace

TEST_CASE("gated scores are compared as Bradley and Terry do", "[learners][cpu]") {
  // R = 0.5 * 2 + 0.5 * 1 = 1.5 against 0.25 * 1 + 0.75 * 0 = 0.25; beta 2: d = 2.5.
  const at::Tensor values = vec({2, 1, 1, 0}).view({2, 2});
  const at::Tensor gate = vec({0.5, 0.5, 0.25, 0.75}).view({2, 2});
  const PairLoss out = gated_pair_loss(values, gate, 1, 2);
  CHECK(out.loss.item<double>() == Approx(std::log1p(std::exp(-2.5))));
  CHECK(out.correct.item<double>() == 1);
  CHECK(testing::gradient_error(
            [&](const at::Tensor& g) { return gated_pair_loss(values, g, 1, 2).loss; }, gate) <
        1e-8);
  CHECK_THROWS_AS(gated_pair_loss(values, vec({1, 1}).view({1, 2}), 1, 1), ShapeError);
  CHECK_THROWS_AS(gated_pair_loss(values, gate, 0, 1), InvalidArgument);
}

TEST_CASE("the gradient of a whole gate is that of differences", "[learners][cpu]") {
  const AttributeGate gate = AttributeGate::make(4, 3, 1, 5, stream(1), at::kDouble);
  at::manual_seed(3);
  const at::Tensor hidden = at::randn({4, 4}, at::kDouble), values = at::randn({4, 3}, at::kDouble);
  const auto loss = [&](size_t layer, const at::Tensor& weight) {
    AttributeGate changed = gate;
    changed.weights[layer] = weight;
    return gated_pair_loss(values, changed(hidden), 2, 1.5).loss;
  };
  for (size_t layer = 0; layer < 2; ++layer) {
    CHECK(testing::gradient_error([&](const at::Tensor& w) { return loss(layer, w); },
                                  gate.weights[layer]) < 1e-8);
  }
  const auto scaled = [&](const at::Tensor& scale) {
    AttributeGate changed = gate;
    changed.scale = scale;
    return gated_pair_loss(values, changed(hidden), 2, 1.5).loss;
  };
  CHECK(testing::gradient_error(scaled, gate.scale) < 1e-8);
}

TEST_CASE("only the gate and its scale are trained, by what the prompt says", "[learners][cpu]") {
  const testing::OneThread one_thread;
  Learner learner = make_learner();
  const at::Tensor head = learner.scalar().head.weight.clone();
  const at::Tensor embedding = learner.scalar().backbone.parameters().front().tensor.clone();
  const StepReport first = learner.update(rows());
  CHECK(metric(first, "gate/pairs") == 3);
  CHECK(metric(first, "gate/scale") == Approx(1).epsilon(1e-5));
  CHECK(metric(first, "gate/entropy") == Approx(std::log(3.0)).epsilon(0.01));
  double before = metric(first, "gate/loss"), after = 0;
  for (int step = 0; step < 40; ++step) after = metric(learner.update(rows()), "gate/loss");
  CHECK(after < before);
  CHECK(at::equal(head, learner.scalar().head.weight));
  CHECK(at::equal(embedding, learner.scalar().backbone.parameters().front().tensor));
  for (const NamedTensor& t : learner.state())
    CHECK((t.name.starts_with("gate/") || t.name.starts_with("optimizer/gate/")));
  const StepReport held{.metrics = learner.evaluate(rows())};
  CHECK(metric(held, "loss") == Approx(metric(learner.update(rows()), "gate/loss")).epsilon(1e-4));
}

TEST_CASE("the cut into micro-batches does not move a gate, and a state comes back",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  Learner whole = make_learner(), cut = make_learner(8);
  for (int step = 0; step < 3; ++step) {
    whole.update(rows());
    cut.update(rows());
  }
  const at::Tensor a = testing::flat_state(whole, true), b = testing::flat_state(cut, true);
  CHECK((a - b).norm().item<double>() < 1e-4 * a.norm().item<double>());
  Learner again = make_learner();
  again.load_state(whole.state(), whole.state_json());
  CHECK(again.update(rows()).gradient_digest == whole.update(rows()).gradient_digest);
}

TEST_CASE("attribute_gate reads its section and wants its gate", "[learners][cpu]") {
  auto document = YamlDocument::parse("beta: 0\nlayers: -1\nreference_rows: 0\nverbose: x\n");
  AttributeGateConfig::from_yaml(document->root());
  CHECK(document->errors().size() == 4);
  const auto algorithm = algorithm_from("attribute_gate", "{verbosity: long, width: 8}");
  REQUIRE(algorithm->models().gate);
  CHECK(algorithm->models().gate->verbosity == "long");
  CHECK(algorithm->models().gate->layers == 3);
  LearnerModels models;
  models.scalar = testing::tiny_scalar();
  CHECK_THROWS_WITH(Learner({}, algorithm_from("attribute_gate"), std::move(models)),
                    Catch::Contains("needs a gate to train"));
}

}  // namespace praetor
