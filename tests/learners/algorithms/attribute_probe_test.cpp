#include "learners/algorithms/attribute_probe.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/str.h"
#include "core/model/packed.h"
#include "learners/algorithms/ridge.h"
#include "learners/learner.h"
#include "tests/learners/support/groups.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/emulated_device.h"
#include "tests/support/ranks.h"

namespace praetor {

using testing::algorithm_from;
using testing::make_example;
using testing::metric;

namespace {

const double kNone = std::numeric_limits<double>::quiet_NaN();
const char* const kTwo = "{attributes: {good: 1, long: -0.5}, alphas: [0.1]}";
const char* const kChoice =
    "{attributes: {good: 1, long: -0.5}, alphas: [10, 0.01], held_out: 0.4}";

/// Prompts of two responses each; some labels are missing, and row 4 has none.
std::vector<Example> rows() {
  std::vector<Example> out;
  for (int64_t i = 0; i < 15; ++i) {
    std::vector<int64_t> response;
    for (int64_t k = 0; k <= i % 4; ++k) response.push_back(2 + (i * 5 + k * 3) % 9);
    out.push_back(make_example({1, 1 + i / 2}, response));
    out.back().labels = {i % 4 == 0 ? kNone : std::sin(static_cast<double>(i)),
                         i % 5 == 4 ? kNone : static_cast<double>(response.size())};
    out.back().row = i;
  }
  return out;
}

Learner make_learner(const std::string& section,
                     Collective* ranks = nullptr,
                     int64_t micro_batch_tokens = 8192,
                     at::Device device = at::kCPU) {
  LearnerConfig settings;
  settings.device = device;
  settings.micro_batch_tokens = micro_batch_tokens;
  LearnerModels models;
  models.scalar = testing::tiny_scalar();
  models.scalar->head = ScalarHead::make(
      16, RandomStream({.job_seed = 9, .purpose = Purpose::kInitialise}), at::kFloat, 2);
  return Learner(settings, algorithm_from("attribute_probe", section), std::move(models), ranks);
}

/// Of each row's last token, one forward a row.
at::Tensor features(const Learner& learner, const std::vector<Example>& examples) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> out;
  for (const Example& one : examples)
    out.push_back(learner.scalar().backbone.hidden(pack({one.tokens})).slice(0, -1));
  return at::cat(out);
}

at::Tensor labels(const std::vector<Example>& examples, size_t attribute) {
  std::vector<double> out;
  for (const Example& one : examples) out.push_back(one.labels[attribute]);
  return at::tensor(out, at::kDouble);
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b.to(at::kDouble)).norm() / b.to(at::kDouble).norm()).item<double>();
}

}  // namespace

TEST_CASE("a probe's head is the ridge regression on the last tokens", "[learners][cpu]") {
  Learner learner = make_learner(kTwo);
  const auto all = rows();
  const at::Tensor before = learner.scalar().backbone.parameters().front().tensor.clone();
  const StepReport report = learner.update(all);
  const at::Tensor h = features(learner, all);
  double squares = 0;
  for (size_t a = 0; a < 2; ++a) {
    const RidgeSums sums = ridge_sums(h, labels(all, a));
    const at::Tensor wanted = ridge_weights(sums, 0.1);
    CHECK(distance(learner.scalar().head.weight[static_cast<int64_t>(a)], wanted) < 1e-4);
    squares += ridge_error(sums, wanted) * sums.count;
  }
  // 4 + 3 of the 30 labels are missing.
  CHECK(metric(report, "attributes/labels") == 23);
  CHECK(metric(report, "attributes/loss") == Approx(squares / 23).epsilon(1e-4));
  CHECK(metric(report, "attributes/good/alpha") == 0.1);
  CHECK(at::equal(before, learner.scalar().backbone.parameters().front().tensor));
  const StepReport held{.metrics = learner.evaluate(all)};
  CHECK(metric(held, "loss") == Approx(metric(report, "attributes/loss")).epsilon(1e-4));
  CHECK(metric(held, "long/pearson") > 0.9);
}

TEST_CASE("a probe chooses alpha for each attribute by rows it has not learnt", "[learners][cpu]") {
  Learner learner = make_learner(kChoice);
  const auto all = rows();
  const StepReport report = learner.update(all);
  const at::Tensor h = features(learner, all);
  const at::Tensor held = held_out_rows(15, 0.4);
  const auto part = [&](bool which, size_t a) {
    const at::Tensor chosen = held.eq(which).nonzero().view(-1);
    return ridge_sums(h.index_select(0, chosen), labels(all, a).index_select(0, chosen));
  };
  const char* const names[] = {"good", "long"};
  for (size_t a = 0; a < 2; ++a) {
    const RidgeFit wanted = fit_ridge(part(false, a), part(true, a), {10, 0.01});
    const std::string name = str("attributes/", names[a]);
    CHECK(metric(report, name + "/alpha") == wanted.alpha);
    CHECK(metric(report, name + "/held_out_mse") == Approx(wanted.held_out_error).epsilon(1e-4));
  }
}

TEST_CASE("what a probe finds depends neither on the cut nor on its first head",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  Learner whole = make_learner(kTwo), cut = make_learner(kTwo, nullptr, 5);
  whole.update(rows());
  const at::Tensor first = whole.scalar().head.weight.clone();
  const StepReport again = whole.update(rows());
  CHECK(at::equal(first, whole.scalar().head.weight));
  cut.update(rows());
  CHECK(distance(cut.scalar().head.weight, first) < 1e-4);
  CHECK(again.gradient_digest.size() == 64);
  CHECK(nlohmann::json::parse(again.manifest).at("epochs")[0][0][0][0].size() == 15);
}

TEST_CASE("several ranks find the probe of one", "[learners][cpu]") {
  const testing::OneThread one_thread;
  Learner alone = make_learner(kChoice, nullptr, 9);
  const StepReport wanted = alone.update(rows());
  for (const int32_t world : {2, 3, 4}) {
    const auto w = static_cast<size_t>(world);
    std::vector<at::Tensor> heads(w);
    std::vector<StepReport> reports(w);
    const auto errors = testing::run_ranks(world, [&](Collective& ranks) {
      const auto r = static_cast<size_t>(ranks.rank());
      Learner learner = make_learner(kChoice, &ranks, 9);
      reports[r] = learner.update(rows());
      heads[r] = learner.scalar().head.weight.clone();
    });
    INFO(errors[0]);
    CHECK(errors == std::vector<std::string>(w));
    CHECK(distance(heads[0], alone.scalar().head.weight) < 1e-4);
    CHECK(metric(reports[0], "attributes/loss") ==
          Approx(metric(wanted, "attributes/loss")).epsilon(1e-4));
    for (size_t r = 1; r < w; ++r) {
      CHECK(at::equal(heads[r], heads[0]));
      CHECK(reports[r].metrics == reports[0].metrics);
      CHECK(reports[r].loss_digest == reports[0].loss_digest);
      CHECK(reports[r].gradient_digest == reports[0].gradient_digest);
    }
  }
}

TEST_CASE("the probe of a backbone on a device is the CPU's", "[learners][cpu][device]") {
  const testing::OneThread one_thread;
  const auto head_of = [](const Learner& learner) {
    return learner.state().at(0).tensor.detach().cpu();
  };
  Learner cpu = make_learner(kChoice, nullptr, 9);
  const StepReport wanted = cpu.update(rows());
  const StepReport wanted_after{.metrics = cpu.evaluate(rows())};
  for (const int32_t world : {1, 2}) {
    std::vector<StepReport> reports(static_cast<size_t>(world)), after = reports;
    at::Tensor head;  // the first rank's state
    const int64_t before = testing::emulated_operators();
    CHECK(testing::run_ranks(world, [&](Collective& ranks) {
            const auto r = static_cast<size_t>(ranks.rank());
            Learner learner =
                make_learner(kChoice, &ranks, 9, testing::emulated_device(ranks.rank()));
            reports[r] = learner.update(rows());
            after[r].metrics = learner.evaluate(rows());
            if (r == 0) head = head_of(learner);
          }) == std::vector<std::string>(static_cast<size_t>(world)));
    CHECK(testing::emulated_operators() > before);
    REQUIRE(head.defined());
    CHECK(distance(head, head_of(cpu)) < 1e-4);
    for (size_t r = 0; r < reports.size(); ++r) {
      CHECK(metric(reports[r], "attributes/loss") ==
            Approx(metric(wanted, "attributes/loss")).epsilon(1e-4));
      CHECK(metric(after[r], "long/pearson") ==
            Approx(metric(wanted_after, "long/pearson")).epsilon(1e-3));
    }
  }
}

TEST_CASE("a probe's state is its head", "[learners][cpu]") {
  Learner learner = make_learner(kTwo);
  learner.update(rows());
  const auto state = learner.state();
  REQUIRE(state.size() == 1);
  CHECK(state[0].name == "reward_model/score.weight");
  Learner again = make_learner(kTwo);
  again.load_state(state, learner.state_json());
  CHECK(again.step() == 1);
  CHECK(at::equal(again.scalar().head.weight, learner.scalar().head.weight));
  CHECK(again.evaluate(rows()) == learner.evaluate(rows()));
}

TEST_CASE("a probe names the attribute that has too few labels, on every rank", "[learners][cpu]") {
  auto all = rows();
  for (Example& one : all) one.labels[1] = kNone;
  Learner learner = make_learner(kTwo);
  const at::Tensor before = learner.scalar().head.weight.clone();
  const std::string wanted =
      "attribute_probe: attribute \"long\": 0 labels are too few: one at least is wanted";
  CHECK_THROWS_WITH(learner.update(all), Catch::Equals(wanted));
  CHECK(at::equal(before, learner.scalar().head.weight));
  const auto errors = testing::run_ranks(2, [&](Collective& ranks) {
    Learner one = make_learner(kTwo, &ranks);
    one.update(all);
  });
  CHECK(errors == std::vector<std::string>(2, wanted));
  all[0].labels[1] = 1;
  CHECK_THROWS_WITH(make_learner(kChoice).update(all),
                    Catch::Contains("\"long\": 1 labels are too few: 0 of them are held out"));
}

TEST_CASE("attribute_probe reads its section", "[learners][cpu]") {
  auto document = YamlDocument::parse("alphas: [1, 0, -2]\nheld_out: 1\nbatch_size: 4\n");
  AttributeProbeConfig::from_yaml(document->root());
  CHECK(document->errors().size() == 4);
  auto empty = YamlDocument::parse("alphas: []\nattributes: {}\n");
  AttributeProbeConfig::from_yaml(empty->root());
  CHECK(empty->errors().size() == 2);
  const auto algorithm = algorithm_from("attribute_probe", kChoice);
  CHECK(algorithm->sample_plan().prompts_per_step == 0);
  CHECK(algorithm->sample_plan().labels == std::vector<std::string>{"good", "long"});
  CHECK(algorithm->label_weights() == std::vector<double>{1, -0.5});
  REQUIRE(algorithm->models().probe);
  CHECK(algorithm->models().probe->held_out == 0.4);
}

}  // namespace praetor
