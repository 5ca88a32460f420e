// Optimizers whose state is small, or in parts: against one process, and over a resume.
#include <ATen/ATen.h>

#include "core/base/error.h"
#include "learners/sharding/sharded_optimizer.h"
#include "tests/learners/sharding/cases.h"
#include "tests/learners/sharding/train_group.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"

namespace praetor {

using namespace testing;

namespace {

/// Kinds of state that are kept.
std::vector<CaseOptions> kinds() {
  std::vector<CaseOptions> out;
  for (const std::string kind : {"adamw", "sgd", "adafactor"}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      out.push_back({.optimizer = kind, .state_dtype = dtype});
  }
  return out;
}

int64_t optimizer_bytes(const Learner& learner) {
  int64_t out = 0;
  for (const NamedTensor& t : learner.state()) {
    if (t.name.starts_with("optimizer/")) out += static_cast<int64_t>(t.tensor.nbytes());
  }
  return out;
}

/// Three steps of optimizers on parameters that the ranks' parts cut within rows; only the first
/// rank has gradients, so that their sums are exact.
std::vector<at::Tensor> three_steps(const CaseOptions& options, Collective& ranks) {
  const std::vector<NamedTensor> mine{{"a.weight", at::arange(35).to(at::kFloat).view({5, 7}) / 9},
                                      {"a.bias", at::arange(7).to(at::kFloat) / 3},
                                      {"idle.weight", at::ones({4, 5})},
                                      {"b.weight", at::arange(20).to(at::kFloat).sin()}};
  OptimizerConfig config{.kind = options.optimizer, .weight_decay = 0.5, .max_grad_norm = 0};
  config.momentum = 0.9;
  config.scale_parameter = true;
  config.state_dtype = options.state_dtype;
  ShardedOptimizer optimizer("policy", mine, config, ranks);
  for (int step = 0; step < 3; ++step) {
    for (size_t i = 0; i < mine.size(); ++i) {
      const at::Tensor& w = mine[i].tensor;
      if (i == 2 || ranks.rank() > 0) continue;
      w.mutable_grad() = (at::arange(w.numel()).to(at::kFloat) + 31 * step + static_cast<double>(i))
                             .cos()
                             .view(w.sizes());
    }
    optimizer.reduce_gradients();
    optimizer.step(0.1);
    optimizer.zero_grad();
  }
  std::vector<at::Tensor> out;
  for (const NamedTensor& p : mine) out.push_back(p.tensor.detach().clone());
  return out;
}

}  // namespace

TEST_CASE("parts of ranks step as one process does", "[learners][cpu]") {
  const auto alone = make_local_collective();
  for (const CaseOptions& options : kinds()) {
    CAPTURE(options.optimizer, options.state_dtype);
    const auto wanted = three_steps(options, *alone);
    CHECK(at::equal(wanted[2], at::ones({4, 5})));
    for (const int32_t world : {2, 3, 4}) {
      std::vector<std::vector<at::Tensor>> got(static_cast<size_t>(world));
      CHECK(run_ranks(world, [&](Collective& ranks) {
              got[static_cast<size_t>(ranks.rank())] = three_steps(options, ranks);
            }) == std::vector<std::string>(static_cast<size_t>(world)));
      for (const auto& one : got) {
        for (size_t i = 0; i < one.size(); ++i) {
          CHECK(at::equal(one[i], got[0][i]));
          // Sums over rows that are cut are added in another order: in float64, so that it shows
          // in the last digit at most.
          CHECK((options.optimizer == "adafactor" ? at::allclose(one[i], wanted[i], 1e-5, 1e-6)
                                                  : at::equal(one[i], wanted[i])));
        }
      }
    }
  }
}

TEST_CASE("every kind of state resumes bit for bit, at every stage", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const CaseOptions& kind : kinds()) {
    for (const int64_t stage : {1, 3}) {
      CaseOptions options = kind;
      options.stage = stage;
      CAPTURE(options.optimizer, options.state_dtype, stage);
      const Trained whole = train("sft", 2, 0, 4, options), half = train("sft", 2, 0, 2, options);
      REQUIRE(half.errors == std::vector<std::string>(2));
      const Trained rest = train("sft", 2, 2, 4, options, [&](Learner& learner) {
        learner.load_state(half.shards, half.state_json[0]);
      });
      CHECK(rest.errors == std::vector<std::string>(2));
      CHECK(rest.weights == whole.weights);
      REQUIRE(rest.shards.size() == whole.shards.size());
      for (size_t i = 0; i < rest.shards.size(); ++i)
        CHECK(at::equal(rest.shards[i].tensor, whole.shards[i].tensor));
      // Another number of ranks takes it, too.
      Learner other = joined("sft", half, kind);
      CHECK(testing::weights_digest(other) == half.weights[0]);
      for (int step = 2; step < 4; ++step) update_case("sft", other, step);
      CHECK(relative_distance(flat_state(other, true),
                              flat_state(joined("sft", whole, kind), true)) < 1e-3);
    }
  }
}

TEST_CASE("stages and ranks step alike with every kind of optimizer", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const CaseOptions& kind : kinds()) {
    CAPTURE(kind.optimizer, kind.state_dtype);
    CaseOptions options = kind;
    options.micro_batch_tokens = 8192;
    Learner alone = make_case("ppo", nullptr, options);
    for (int step = 0; step < 3; ++step) update_case("ppo", alone, step);
    Trained first;
    for (const int64_t stage : {1, 2, 3}) {
      CAPTURE(stage);
      options.stage = stage;
      const Trained got = train("ppo", 2, 0, 3, options);
      REQUIRE(got.errors == std::vector<std::string>(2));
      if (stage == 1) first = got;
      CHECK(got.weights[1] == got.weights[0]);
      const Learner whole = joined("ppo", got, kind);
      // A gradient that differs in its last digit may be rounded to the other neighbour.
      const double near = kind.state_dtype == at::kFloat ? 1e-5 : 1e-3;
      CHECK(relative_distance(flat_state(whole, true), flat_state(alone, true)) < near);
      if (kind.optimizer == "adafactor") continue;  // whose sums have the order of the cut
      CHECK(got.weights == first.weights);
    }
  }
}

TEST_CASE("states take the memory that was promised", "[learners][cpu]") {
  const auto bytes = [](const std::string& kind, at::ScalarType dtype) {
    return optimizer_bytes(make_case("sft", nullptr, {.optimizer = kind, .state_dtype = dtype}));
  };
  int64_t parameters = 0;
  const Learner plain = make_case("sft", nullptr);
  for (const NamedTensor& p : plain.policy().parameters()) parameters += p.tensor.numel();
  CHECK(bytes("adamw", at::kFloat) == 8 * parameters);
  CHECK(bytes("adamw", at::kBFloat16) == 4 * parameters);
  CHECK(bytes("sgd", at::kFloat) == 4 * parameters);
  CHECK(bytes("sgd", at::kBFloat16) == 2 * parameters);
  // exp_avg, and rows and columns.
  CHECK(bytes("adafactor", at::kBFloat16) > 2 * parameters);
  CHECK(bytes("adafactor", at::kBFloat16) < 3 * parameters);
}

TEST_CASE("training with states in bfloat16 learns what float32 does", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const auto loss_after = [](const std::string& kind, at::ScalarType dtype) {
    Learner learner = make_case("sft", nullptr, {.optimizer = kind, .state_dtype = dtype});
    double loss = 0;
    for (int step = 0; step < 60; ++step) loss = loss_of("sft", update_case("sft", learner, step));
    return loss;
  };
  for (const std::string kind : {"adamw", "sgd", "adafactor"}) {
    CAPTURE(kind);
    CHECK(loss_after(kind, at::kBFloat16) == Approx(loss_after(kind, at::kFloat)).epsilon(0.02));
  }
}

TEST_CASE("states of either type load into the other, those of another kind do not",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  const CaseOptions fine, half{.state_dtype = at::kBFloat16};
  const Trained from_fine = train("sft", 2, 0, 2, fine), from_half = train("sft", 2, 0, 2, half);
  const Learner to_half = joined("sft", from_fine, half), to_fine = joined("sft", from_half, fine);
  const Learner same = joined("sft", from_fine, fine);
  CHECK(at::allclose(testing::part_of_state(to_half, "exp_avg"),
                     testing::part_of_state(same, "exp_avg"),
                     1.0 / 256,
                     0));
  CHECK(at::equal(testing::part_of_state(to_fine, "exp_avg"),
                  testing::part_of_state(joined("sft", from_half, half), "exp_avg")));
  CHECK_THROWS_WITH(joined("sft", from_fine, {.optimizer = "sgd"}),
                    Catch::Contains("the optimizer of its policy is adamw, but this job's is sgd"));
}

}  // namespace praetor
