#include "actors/train/experience_builder.h"

#include <ATen/ATen.h>

#include "tests/support/catch.h"
#include "tests/support/ranks.h"

namespace praetor {

namespace {

ScoredSample sample(int64_t ordinal, std::vector<AttributeScore> attributes) {
  ScoredSample out;
  out.rollout.id = {ordinal, 0};
  out.rollout.tokens = {1, 2, 3};
  out.rollout.prompt_length = 2;
  out.rollout.behavior_logprobs = {-0.5F};
  out.score.score.score = 1.5;
  out.score.score.parts.push_back({.name = "length", .score = 1.0});
  if (!attributes.empty())
    out.score.score.parts.push_back({.name = "quality", .attributes = std::move(attributes)});
  return out;
}

}  // namespace

TEST_CASE("the numbers of a part with several reach the learner, over any ranks", "[actors][cpu]") {
  const std::vector<ScoredSample> samples = {sample(0, {{"kind", 0.1, 0.6}, {"long", 2, -0.8}}),
                                             sample(1, {{"kind", 1, 1}, {"long", 3, 0}}),
                                             sample(2, {{"kind", 5, 0}, {"long", -1, 1}})};
  const auto right = [](const Experience& e) {
    const auto options = at::TensorOptions().dtype(at::kDouble);
    return e.sequences() == 3 && e.attribute_names == std::vector<std::string>{"kind", "long"} &&
           at::equal(e.attributes,
                     at::tensor({0.1, 2.0, 1.0, 3.0, 5.0, -1.0}, options).view({3, 2})) &&
           at::equal(e.attribute_weights,
                     at::tensor({0.6, -0.8, 1.0, 0.0, 0.0, 1.0}, options).view({3, 2}));
  };
  CHECK(right(make_experience(samples)));
  std::vector<int> good(2, 0);
  const auto errors = testing::run_ranks(2, [&](Collective& ranks) {
    const auto rank = static_cast<size_t>(ranks.rank());
    const std::vector<ScoredSample> mine(samples.begin() + (rank == 0 ? 0 : 1),
                                         rank == 0 ? samples.begin() + 1 : samples.end());
    good[rank] = right(gather_experience(ranks, mine)) ? 1 : 0;
  });
  CHECK(errors == std::vector<std::string>{"", ""});
  CHECK(good == std::vector<int>{1, 1});
}

TEST_CASE("samples that do not all have the same numbers carry none", "[actors][cpu]") {
  const Experience mixed = make_experience({sample(0, {{"kind", 1, 1}}), sample(1, {})});
  CHECK_FALSE(mixed.attributes.defined());
  CHECK(mixed.attribute_names.empty());
  CHECK_FALSE(
      make_experience({sample(0, {{"a", 1, 1}}), sample(1, {{"b", 1, 1}})}).attributes.defined());
}

TEST_CASE("each token's weights reach the learner, over any ranks", "[actors][cpu]") {
  ScoredSample begun = sample(0, {});
  begun.rollout.tokens = {1, 2, 3, 4};
  begun.rollout.behavior_logprobs = {-0.5F, -0.25F};
  begun.rollout.weight_version = 3;
  begun.rollout.versions = {3, 4};
  ScoredSample plain = sample(1, {});
  plain.rollout.weight_version = 4;
  CHECK_FALSE(make_experience({plain}).token_version.defined());
  const auto right = [](const Experience& e) {
    return e.weight_version == std::vector<int64_t>{3, 4} &&
           at::equal(e.token_version, at::tensor({3, 4, 4}, at::kLong));
  };
  CHECK(right(make_experience({begun, plain})));
  std::vector<int> good(2, 0);
  const auto errors = testing::run_ranks(2, [&](Collective& ranks) {
    const auto rank = static_cast<size_t>(ranks.rank());
    good[rank] = right(gather_experience(ranks, {rank == 0 ? begun : plain})) ? 1 : 0;
  });
  CHECK(errors == std::vector<std::string>{"", ""});
  CHECK(good == std::vector<int>{1, 1});
}

}  // namespace praetor
