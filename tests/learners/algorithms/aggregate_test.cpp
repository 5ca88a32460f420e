#include "learners/algorithms/aggregate.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::gradient_error;
using testing::ids;
using testing::mask_of;
using testing::vec;

namespace {

const std::vector<std::pair<Aggregation, double>> kWorked{
    {Aggregation::kTokenMean, 1.666667},
    {Aggregation::kSeqMeanTokenMean, 1.5},
    {Aggregation::kSeqMeanTokenSum, 5.0},
    {Aggregation::kSeqMeanTokenSumNorm, 0.625}};

}  // namespace

TEST_CASE("the four modes give the numbers of the worked example", "[learners][cpu]") {
  // Lengths 2 and 4, losses 1 and 2; T_max = 8.
  for (const auto& [mode, wanted] : kWorked) {
    const auto got = aggregate(vec({1, 1, 2, 2, 2, 2}),
                               mask_of({1, 1, 1, 1, 1, 1}),
                               ids({0, 0, 1, 1, 1, 1}),
                               {.tokens = 6, .sequences = 2},
                               mode,
                               8);
    CHECK(got.item<double>() == Approx(wanted));
  }
}

TEST_CASE("shares of micro-batches add up to one large batch in every mode", "[learners][cpu]") {
  for (const auto& [mode, wanted] : kWorked) {
    const Denominators whole{.tokens = 6, .sequences = 2};
    const auto first = aggregate(vec({1, 1}), mask_of({1, 1}), ids({0, 0}), whole, mode, 8);
    const auto second =
        aggregate(vec({2, 2, 2, 2}), mask_of({1, 1, 1, 1}), ids({0, 0, 0, 0}), whole, mode, 8);
    CHECK((first + second).item<double>() == Approx(wanted));
  }
}

TEST_CASE("masked tokens and empty sequences count nowhere", "[learners][cpu]") {
  // Sequence 1 has no tokens; NaN stands outside the mask.
  for (const auto& [mode, wanted] : kWorked) {
    const auto got = aggregate(vec({1, std::nan(""), 1, 2, 2, 2, 2}),
                               mask_of({1, 0, 1, 1, 1, 1, 1}),
                               ids({0, 0, 0, 2, 2, 2, 2}),
                               {.tokens = 6, .sequences = 2},
                               mode,
                               8);
    CHECK(got.item<double>() == Approx(wanted));
  }
  CHECK(aggregate(vec({}),
                  mask_of({}),
                  ids({}),
                  {.tokens = 1, .sequences = 1},
                  Aggregation::kSeqMeanTokenMean)
            .item<double>() == 0);
}

TEST_CASE("gradients of the aggregates agree with finite differences", "[learners][cpu]") {
  for (const auto& [mode, wanted] : kWorked) {
    const Aggregation how = mode;
    const auto loss = [how](const at::Tensor& x) {
      return aggregate(x.square(),
                       mask_of({1, 0, 1, 1}),
                       ids({0, 0, 0, 1}),
                       {.tokens = 3, .sequences = 2},
                       how,
                       5);
    };
    CHECK(gradient_error(loss, vec({0.3, 1, -2, 4})) < 1e-7);
  }
}

TEST_CASE("a denominator of 0 is refused by name, and so is an unknown mode", "[learners][cpu]") {
  CHECK_THROWS_WITH(aggregate(vec({1}), mask_of({1}), ids({0}), {}),
                    Catch::Contains("denominators.tokens"));
  CHECK_THROWS_WITH(
      aggregate(
          vec({1}), mask_of({1}), ids({0}), {.sequences = 1}, Aggregation::kSeqMeanTokenSumNorm),
      Catch::Contains("max_tokens"));
  CHECK_THROWS_AS(aggregation_from_name("mean"), InvalidArgument);
  for (const auto& name : aggregation_names()) CHECK_NOTHROW(aggregation_from_name(name));
  CHECK(aggregation_from_name("seq-mean-token-sum") == Aggregation::kSeqMeanTokenSum);
}

}  // namespace praetor
