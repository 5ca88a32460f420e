#include "learners/micro_batch.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/error.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::ids;
using Cut = std::vector<std::vector<int64_t>>;

namespace {

/// Lengths 5, 6, 4, 4, 8.
SequenceBatch mixed() {
  return SequenceBatch::from(
      testing::make_experience(testing::mixed_rolls(), *testing::tiny_policy()));
}

}  // namespace

TEST_CASE("micro-batches hold whole sequences in order, up to the budget", "[learners][cpu]") {
  const SequenceBatch batch = mixed();
  CHECK(plan_micro_batches(batch, units_of({0, 1, 2, 3, 4}), 11) == Cut{{0, 1}, {2, 3}, {4}});
  CHECK(plan_micro_batches(batch, units_of({4, 0, 2, 1, 3}), 9) == Cut{{4}, {0, 2}, {1}, {3}});
  CHECK(plan_micro_batches(batch, units_of({0, 1, 2, 3, 4}), 1000) == Cut{{0, 1, 2, 3, 4}});
  CHECK(plan_micro_batches(batch, units_of({}), 8).empty());
}

TEST_CASE("a sequence above the budget goes alone and pairs stay together", "[learners][cpu]") {
  const SequenceBatch batch = mixed();
  CHECK(plan_micro_batches(batch, units_of({0, 4, 1}), 5) == Cut{{0}, {4}, {1}});
  CHECK(plan_micro_batches(batch, units_of({0, 1, 2, 3}, 2), 1) == Cut{{0, 1}, {2, 3}});
  CHECK_THROWS_AS(plan_micro_batches(batch, units_of({0, 1, 2}, 2), 100), InvalidArgument);
  CHECK_THROWS_AS(plan_micro_batches(batch, units_of({0}), 0), InvalidArgument);
}

TEST_CASE("minibatches differ by at most one sequence and none is empty", "[learners][cpu]") {
  CHECK(plan_minibatches({4, 3, 2, 1, 0}, 2) == Cut{{4, 3, 2}, {1, 0}});
  CHECK(plan_minibatches({7, 8}, 5) == Cut{{7}, {8}});
  CHECK(plan_minibatches({}, 3).empty());
}

TEST_CASE("ranks get about as many tokens each, in order", "[learners][cpu]") {
  RandomStream numbers({.job_seed = 5});
  for (const auto& [sequences, world] : {std::pair{32, 8}, {512, 64}, {5, 8}, {100, 3}, {40, 1}}) {
    INFO(sequences << " sequences over " << world << " ranks");
    SequenceBatch batch;
    int64_t longest = 0;
    for (int64_t i = 0; i < sequences; ++i) {
      const auto length = static_cast<int64_t>(100 * std::exp(0.6 * numbers.normal())) + 1;
      batch.offsets.push_back(batch.offsets.back() + length);
      batch.tokens.resize(static_cast<size_t>(batch.offsets.back()));
      batch.target_offsets.push_back(0);
      batch.family.push_back(i);
      batch.shared.push_back(0);
      longest = std::max(longest, length);
    }
    std::vector<int64_t> order = numbers.permutation(sequences), met;
    const std::vector<Units> ranks = plan_ranks(batch, units_of(order), world);
    REQUIRE(ranks.size() == static_cast<size_t>(world));
    int64_t most = 0;
    for (const Units& rank : ranks) {
      int64_t tokens = 0, before = -1;
      for (const auto& unit : rank) {
        const int64_t at = std::ranges::find(order, unit.front()) - order.begin();
        CHECK(at > before);
        before = at;
        tokens += batch.length(unit.front());
        met.push_back(unit.front());
      }
      most = std::max(most, tokens);
    }
    std::ranges::sort(met);
    std::ranges::sort(order);
    CHECK(met == order);
    const double mean = static_cast<double>(batch.offsets.back()) / world;
    CHECK(static_cast<double>(most) <= 1.1 * std::max(mean, static_cast<double>(longest)));
  }
}

TEST_CASE("families stay on a rank unless that leaves others idle", "[learners][cpu]") {
  SequenceBatch batch;
  // Five families of two: 10 tokens each, of which 6 are shared.
  for (int64_t i = 0; i < 10; ++i) {
    batch.offsets.push_back(10 * (i + 1));
    batch.family.push_back(i / 2);
    batch.shared.push_back(6);
  }
  const auto order = std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7};
  CHECK(plan_ranks(batch, units_of(order), 2) ==
        std::vector<Units>{{{0}, {1}, {4}, {5}}, {{2}, {3}, {6}, {7}}});
  // Together 28 and 14 tokens, with one moved 24 each.
  CHECK(plan_ranks(batch, units_of({0, 1, 2, 3, 4, 5}), 2) ==
        std::vector<Units>{{{0}, {1}, {4}}, {{2}, {3}, {5}}});
  CHECK(plan_ranks(batch, units_of({0, 1}), 2) == std::vector<Units>{{{0}}, {{1}}});
  CHECK(plan_ranks(batch, units_of({}), 2) == std::vector<Units>(2));
  CHECK_THROWS_AS(plan_ranks(batch, units_of({}), 0), InvalidArgument);
}

TEST_CASE("a slice names the row before each response token", "[learners][cpu]") {
  // Sequence 3 is 1 3 | 4 4 and sequence 2 is 1 5 2 | 4; response tokens of the batch: 3, 5, 1,
  // 2, 4.
  const PackedSlice slice = pack_slice(mixed(), {3, 2});
  CHECK(at::equal(slice.packed.tokens, ids({1, 3, 4, 4, 1, 5, 2, 4})));
  CHECK(slice.packed.offsets == std::vector<int64_t>{0, 4, 8});
  CHECK(at::equal(slice.rows, ids({1, 2, 6})));
  CHECK(at::equal(slice.targets, ids({4, 4, 4})));
  CHECK(at::equal(slice.sequence_of, ids({0, 0, 1})));
  CHECK(at::equal(slice.index, ids({9, 10, 8})));
  CHECK(at::equal(slice.last, ids({3, 7})));
}

TEST_CASE("what the samples of a prompt share is packed and counted once", "[learners][cpu]") {
  // 3 4 | 1 2, 3 | 5, 3 4 | (nothing), 3 4 | 2
  const auto policy = testing::tiny_policy();
  const SequenceBatch batch = SequenceBatch::from(
      testing::make_experience({testing::Roll{.prompt = {3, 4}, .response = {1, 2}},
                                testing::Roll{.prompt = {3}, .response = {5}},
                                testing::Roll{.prompt = {3, 4}, .response = {}},
                                testing::Roll{.prompt = {3, 4}, .response = {2}}},
                               *policy));
  const std::vector<int64_t> order{1, 0, 2, 3};
  const PackedSlice slice = pack_slice(batch, order);
  CHECK(at::equal(slice.packed.tokens, ids({3, 5, 3, 4, 1, 2, 2})));
  CHECK(slice.packed.offsets == std::vector<int64_t>{0, 2, 4, 6, 6, 7});
  CHECK(slice.packed.prefix == std::vector<int64_t>{-1, -1, 1, 1, 1});
  CHECK(at::equal(slice.rows, ids({0, 3, 4, 3})));
  CHECK(at::equal(slice.targets, ids({5, 1, 2, 2})));
  CHECK(at::equal(slice.last, ids({1, 5, 3, 6})));
  CHECK(pack_slice(batch, {3}).packed.prefix.empty());

  CHECK(by_family(batch, units_of({3, 1, 0, 2})) == Units{{3}, {0}, {2}, {1}});
  CHECK(plan_micro_batches(batch, units_of({0, 2, 3}), 5) == Cut{{0, 2, 3}});
  CHECK(plan_micro_batches(batch, units_of({0, 1, 3}), 5) == Cut{{0}, {1, 3}});

  const at::Tensor together = policy->hidden(slice.packed).index_select(0, slice.last);
  for (int64_t i = 0; i < 4; ++i) {
    const PackedSlice alone = pack_slice(batch, {order[static_cast<size_t>(i)]});
    CHECK(at::equal(policy->hidden(alone.packed).index_select(0, alone.last)[0], together[i]));
  }
}

TEST_CASE("a pair shares what both begin with", "[learners][cpu]") {
  const auto example = [](std::vector<int64_t> tokens, std::vector<uint8_t> target) {
    Example out;
    out.tokens = {tokens.begin(), tokens.end()};
    out.target = {target.begin(), target.end()};
    return out;
  };
  // The answers begin alike, and one of them ends there.
  const SequenceBatch batch = SequenceBatch::from({example({1, 2, 3, 4}, {0, 0, 1, 1}),
                                                   example({1, 2, 3}, {0, 0, 1}),
                                                   example({1, 5}, {0, 1}),
                                                   example({1, 6}, {0, 1})},
                                                  2);
  CHECK(batch.family == std::vector<int64_t>{0, 0, 1, 1});
  CHECK(batch.shared == std::vector<int64_t>{3, 3, 1, 1});
  const PackedSlice slice = pack_slice(batch, {0, 1, 2, 3});
  CHECK(slice.packed.prefix == std::vector<int64_t>{-1, 0, 0, -1, -1});
  CHECK(at::equal(slice.packed.tokens, ids({1, 2, 3, 4, 1, 5, 1, 6})));
  CHECK(at::equal(slice.rows, ids({1, 2, 1, 4, 6})));
  CHECK(at::equal(slice.targets, ids({3, 4, 3, 5, 6})));
  CHECK(at::equal(slice.last, ids({3, 2, 5, 7})));
}

TEST_CASE("targets of an example may have gaps", "[learners][cpu]") {
  Example example;
  example.tokens = {1, 2, 3, 4, 5};
  example.target = {0, 1, 0, 0, 1};
  const SequenceBatch batch = SequenceBatch::from(std::vector<Example>{example});
  const PackedSlice slice = pack_slice(batch, {0});
  CHECK(at::equal(slice.rows, ids({0, 3})));
  CHECK(at::equal(slice.targets, ids({2, 5})));
}

TEST_CASE("examples that cannot be trained on are named by row", "[learners][cpu]") {
  Example example;
  example.row = 17;
  CHECK_THROWS_WITH(SequenceBatch::from(std::vector<Example>{example}), Catch::Contains("row 17"));
  example.tokens = {1, 2};
  example.target = {1, 1};
  CHECK_THROWS_AS(SequenceBatch::from(std::vector<Example>{example}), DataError);
  example.target = {0};
  CHECK_THROWS_AS(SequenceBatch::from(std::vector<Example>{example}), DataError);
}

TEST_CASE("an experience whose parts do not fit is refused", "[learners][cpu]") {
  const Experience good = testing::make_experience(testing::mixed_rolls(), *testing::tiny_policy());
  const auto broken = [&](const auto& change) {
    Experience e = good;
    change(e);
    return e;
  };
  CHECK_THROWS_AS(SequenceBatch::from(Experience{}), ShapeError);
  CHECK_THROWS_AS(SequenceBatch::from(broken([](auto& e) { e.prompt_lengths[2] = 0; })),
                  ShapeError);
  CHECK_THROWS_AS(SequenceBatch::from(broken([](auto& e) { e.prompt_lengths[2] = 9; })),
                  ShapeError);
  CHECK_THROWS_AS(SequenceBatch::from(broken([](auto& e) { e.finished.pop_back(); })), ShapeError);
  CHECK_THROWS_AS(SequenceBatch::from(broken([](auto& e) { e.score = at::zeros({4}); })),
                  ShapeError);
  CHECK_THROWS_AS(SequenceBatch::from(broken([](auto& e) { e.behavior_logprob = at::Tensor(); })),
                  ShapeError);
  CHECK_THROWS_AS(SequenceBatch::from(broken([](auto& e) { e.sequence_of = e.sequence_of + 1; })),
                  ShapeError);
  CHECK_THROWS_AS(SequenceBatch::from(broken([](auto& e) { e.tokens = e.tokens.slice(0, 1); })),
                  ShapeError);
}

}  // namespace praetor
