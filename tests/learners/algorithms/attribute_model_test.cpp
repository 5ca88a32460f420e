#include "learners/algorithms/attribute_model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <limits>

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

const double kNone = std::numeric_limits<double>::quiet_NaN();

Example labelled(const std::vector<int64_t>& prompt,
                 const std::vector<int64_t>& completion,
                 std::vector<double> labels) {
  Example out = make_example(prompt, completion);
  out.labels = std::move(labels);
  return out;
}

/// The first label is high when the response ends in 3, the second one is its length.
std::vector<Example> rows() {
  return {labelled({1, 2}, {5, 3}, {1, 2}),
          labelled({1, 2}, {6, 7, 4}, {-1, 3}),
          labelled({1}, {3}, {1, kNone}),
          labelled({1}, {7, 8, 4}, {kNone, 3}),
          labelled({1, 9}, {5, 6, 8, 3}, {1, 4})};
}

std::unique_ptr<ScalarModel> two_heads() {
  auto model = testing::tiny_scalar();
  model->head = ScalarHead::make(
      16, RandomStream({.job_seed = 9, .purpose = Purpose::kInitialise}), at::kFloat, 2);
  return model;
}

Learner make_learner(int64_t micro_batch_tokens = 8192) {
  LearnerConfig settings;
  settings.optimizer.learning_rate = 3e-3;
  settings.micro_batch_tokens = micro_batch_tokens;
  LearnerModels models;
  models.scalar = two_heads();
  return Learner(settings,
                 algorithm_from("attribute_model", "{attributes: {good: 1, long: -0.5}}"),
                 std::move(models));
}

}  // namespace

TEST_CASE("the loss is the mean squared error of the labels that are there", "[learners][cpu]") {
  // Errors -1, (none), 2, -1: (1 + 4 + 1) / 3.
  const at::Tensor score = vec({1, 7, 3, 3}).view({2, 2});
  const at::Tensor labels = vec({2, kNone, 1, 4}).view({2, 2});
  const AttributeLoss out = attribute_loss(score, labels, 3);
  CHECK(out.loss.item<double>() == Approx(2));
  CHECK(at::equal(out.squares, vec({5, 1})));
  CHECK(at::equal(out.counts, vec({2, 1})));
  CHECK(testing::gradient_error(
            [&](const at::Tensor& x) { return attribute_loss(x, labels, 3).loss; }, score) < 1e-8);
  CHECK_THROWS_AS(attribute_loss(score, vec({1, 2}), 3), ShapeError);
  CHECK_THROWS_AS(attribute_loss(score, labels, 0), InvalidArgument);
}

TEST_CASE("correlation leaves out what is not labelled", "[learners][cpu]") {
  // Of (1, 2, 3) with (1, 3, 2): 1 / 2.
  CHECK(pearson(vec({1, 9, 2, 3}), vec({1, kNone, 3, 2})) == Approx(0.5));
  CHECK(pearson(vec({1, 2}), vec({5, 3})) == Approx(-1));
  CHECK(pearson(vec({1, 1}), vec({5, 3})) == 0);
  CHECK(pearson(vec({1}), vec({5})) == 0);
}

TEST_CASE("pairs are of one prompt and of different labels", "[learners][cpu]") {
  // Prompt 0: 3 pairs, of which (0, 1) is wrong and (1, 2) a tie; prompt 1: equal labels; 2: none.
  const PairAccuracy out = pair_accuracy(
      vec({1, 2, 2, 5, 6, 0, 1}), vec({3, 2, 1, 4, 4, kNone, 2}), {0, 0, 0, 1, 1, 2, 2});
  CHECK(out.pairs == 3);
  CHECK(out.right == 0.5);
}

TEST_CASE("attributes are read at the last token, missing labels left out", "[learners][cpu]") {
  Learner learner = make_learner();
  double wanted = 0;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor s = learner.scalar().score(
        pack({{1, 2, 5, 3}, {1, 2, 6, 7, 4}, {1, 3}, {1, 7, 8, 4}, {1, 9, 5, 6, 8, 3}}));
    REQUIRE(s.size(1) == 2);
    const auto all = rows();
    for (size_t i = 0; i < all.size(); ++i) {
      for (size_t a = 0; a < 2; ++a) {
        if (std::isnan(all[i].labels[a])) continue;
        const double error =
            s[static_cast<int64_t>(i)][static_cast<int64_t>(a)].item<double>() - all[i].labels[a];
        wanted += error * error / 8;
      }
    }
  }
  const StepReport report = learner.update(rows());
  CHECK(metric(report, "attributes/loss") == Approx(wanted).epsilon(1e-5));
  CHECK(metric(report, "attributes/labels") == 8);
  CHECK((metric(report, "attributes/good/mse") + metric(report, "attributes/long/mse")) / 2 ==
        Approx(wanted).epsilon(1e-5));
}

TEST_CASE("the cut into micro-batches does not move an attribute model", "[learners][cpu]") {
  const testing::OneThread one_thread;
  Learner whole = make_learner(), cut = make_learner(5);
  for (int step = 0; step < 3; ++step) {
    const double wanted = metric(whole.update(rows()), "attributes/loss");
    CHECK(metric(cut.update(rows()), "attributes/loss") == Approx(wanted).epsilon(1e-4));
  }
  const at::Tensor a = testing::flat_state(whole, true), b = testing::flat_state(cut, true);
  CHECK((a - b).norm().item<double>() < 1e-4 * a.norm().item<double>());
}

TEST_CASE("an attribute model learns its labels and is measured on held-out rows",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  Learner learner = make_learner();
  for (int step = 0; step < 80; ++step) learner.update(rows());
  const StepReport out{.metrics = learner.evaluate(rows())};
  CHECK(metric(out, "loss") < 0.1);
  CHECK(metric(out, "pearson") > 0.95);
  CHECK(metric(out, "good/pearson") > 0.95);
  CHECK(metric(out, "long/mse") < 0.1);
  // Rows 2 and 3 share a prompt as 0 and 1 do, but lack a label each.
  CHECK(metric(out, "pairs") == 1);
  CHECK(metric(out, "accuracy") == 1);
}

TEST_CASE("rows without any label teach nothing, and an empty response is read",
          "[learners][cpu]") {
  Learner learner = make_learner();
  const at::Tensor before = testing::flat_state(learner, true);
  const StepReport none = learner.update({labelled({1, 2}, {3}, {kNone, kNone})});
  CHECK(none.optimizer_steps == 0);
  CHECK(at::equal(before, testing::flat_state(learner, true)));
  CHECK(learner.update({labelled({1, 2}, {}, {1, kNone})}).optimizer_steps == 1);
  CHECK_THROWS_AS(learner.update({make_example({1}, {3})}), InvalidArgument);
  LearnerModels models;
  models.scalar = testing::tiny_scalar();
  CHECK_THROWS_WITH(Learner({}, algorithm_from("attribute_model"), std::move(models)),
                    Catch::Contains("the model has 1 heads, but 5 are wanted"));
}

TEST_CASE("attribute_model reads its section", "[learners][cpu]") {
  auto document = YamlDocument::parse("batch_size: 0\nattributes: {mean: 1, good: x}\nkeys: 1\n");
  AttributeModelConfig::from_yaml(document->root());
  CHECK(document->errors().size() == 4);
  auto empty = YamlDocument::parse("attributes: {}");
  AttributeModelConfig::from_yaml(empty->root());
  CHECK(empty->errors().size() == 1);
  const auto algorithm = algorithm_from("attribute_model");
  CHECK(algorithm->sample_plan().labels.size() == 5);
  CHECK(algorithm->label_weights()[4] == -0.4);
  CHECK(algorithm->sample_plan().rows == RowForm::kCompletion);
}

}  // namespace praetor
