#include "learners/algorithms/raft.h"

#include <ATen/ATen.h>

#include <cmath>

#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::algorithm_from;
using testing::metric;
using testing::scored;
using testing::vec;

TEST_CASE("the divergence of the best of n has its worked bound", "[learners][cpu]") {
  CHECK(best_of_n_kl_bound(16) == Approx(1.835089).epsilon(1e-6));
  CHECK(best_of_n_kl_bound(1) == 0);
}

TEST_CASE("the best samples are kept, ties in their order", "[learners][cpu]") {
  const at::Tensor rank = vec({1, 5, 3, 5, 2, 0, 0, 0, 0, 9});
  CHECK(keep_best(rank, {0, 1, 2, 3}, 0) == std::vector<int64_t>{1});
  CHECK(keep_best(rank, {0, 1, 2, 3}, 0.5) == std::vector<int64_t>{1, 3});
  CHECK(keep_best(rank, {0, 1, 2, 3}, 0.51) == std::vector<int64_t>{1, 3, 2});
  CHECK(keep_best(rank, {4}, 0) == std::vector<int64_t>{4});
  // 0.3 * 10 is a little above 3 in floating point.
  CHECK(keep_best(rank, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 0.3).size() == 3);
}

TEST_CASE("RAFT trains on the best alone, by its likelihood", "[learners][cpu]") {
  const auto raft = algorithm_from("raft");
  Experience e = scored({1, 2, 0, 5, 5, 4}, 3, {2, 3, 1, 1, 2, 1});
  const Batch batch = raft->build_batch(e, {});
  CHECK(batch.units == std::vector<std::vector<int64_t>>{{1}, {3}});
  CHECK(at::equal(batch.mask, testing::mask_of({0, 0, 1, 1, 1, 0, 1, 0, 0, 0})));
  const StepReport report{.metrics = batch.metrics};
  CHECK(metric(report, "raft/best_score") == Approx(3.5));
  CHECK(metric(report, "raft/unique_best") == 0.5);
  CHECK(metric(report, "raft/kept") == Approx(1.0 / 3));
  CHECK(metric(report, "raft/kl_bound") == Approx(std::log(3.0) - 2.0 / 3));
  const LossResult result = raft->loss(testing::whole_batch(e, batch, e.proximal_logprob - 1));
  CHECK(result.loss.item<double>() == Approx(2));
}

TEST_CASE("repeats of a response are kept once", "[learners][cpu]") {
  for (const bool unique : {true, false}) {
    Experience e = scored({3, 3, 1}, 3, {2, 2, 2});
    e.tokens = testing::ids({1, 7, 8, 1, 7, 8, 1, 9, 9});
    const std::string yaml = unique ? "{keep: 1}" : "{keep: 1, unique: false}";
    CHECK(algorithm_from("raft", yaml)->build_batch(e, {}).units->size() == (unique ? 2 : 3));
  }
}

TEST_CASE("what is kept can be weighted by its score", "[learners][cpu]") {
  Experience e = scored({1, 0}, 2);
  algorithm_from("raft", "{keep: 1, weights: softmax, weight_temperature: 0.5}")
      ->build_batch(e, {});
  const double best = 1 / (1 + std::exp(-2.0));
  CHECK(at::allclose(e.advantage, vec({2 * best, 2 * (1 - best)})));  // of mean 1
}

TEST_CASE("RAFT ranks by the score less the divergence", "[learners][cpu]") {
  const auto raft = algorithm_from("raft", "{kl_coefficient: 1}");
  CHECK(raft->models().reference);
  CHECK_FALSE(algorithm_from("raft")->models().reference);
  Experience e = scored({2, 1}, 2);
  e.reference_logprob = vec({-3.5, -1});  // 2 - 2.5 against 1
  const Batch batch = raft->build_batch(e, {});
  CHECK(batch.units == std::vector<std::vector<int64_t>>{{1}});
  CHECK(metric(StepReport{.metrics = batch.metrics}, "objective/kl") == Approx(1.25));
}

TEST_CASE("keys of raft out of range are named", "[learners][cpu]") {
  const auto document =
      YamlDocument::parse("keep: 1.5\nweights: hard\nweight_temperature: 0\nkepp: 1\n");
  RaftConfig::from_yaml(document->root());
  CHECK(document->errors().size() == 4);
}

}  // namespace praetor
