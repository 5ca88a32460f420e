#include "learners/preference/preferences.h"

#include "core/base/error.h"
#include "learners/preference/prompt_groups.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::make_experience;
using testing::Roll;

TEST_CASE("preferences come from scores or from what was said of a pair", "[learners][cpu]") {
  const auto policy = testing::tiny_policy();
  Roll a{{1}, {2, 3}, 1.5, true, 4, 0};
  Roll b{{1}, {4}, 0.5, false, 4, 1};
  Roll c{{1}, {5}, 0.5, true, 4, 2, 1};
  a.preferences = {{1, 0.9}, {2, 0.25}};
  const Experience e = make_experience({a, b, c}, *policy);

  const Preferences scored(e, PreferenceSource::kScores, 0);
  CHECK(scored(0, 1) == Approx(1 / (1 + std::exp(-1.0))));
  CHECK(scored(1, 0) == Approx(1 - scored(0, 1)));
  CHECK(scored(1, 2) == 0.5);
  const Preferences strict(e, PreferenceSource::kScores, 2);
  CHECK(strict(0, 1) == Approx(1 / (1 + std::exp(-3.0))));

  const Preferences said(e, PreferenceSource::kPairwise, 0);
  CHECK(said(0, 1) == 0.9);
  CHECK(said(1, 0) == Approx(0.1));
  CHECK(said(2, 2) == 0.5);
  CHECK(*said.mean(0, {1, 2}) == Approx(0.575));
  CHECK_FALSE(said.mean(0, {}).has_value());
  CHECK_THROWS_AS(said(1, 2), ShapeError);

  const auto groups = prompt_groups(e, 2);
  REQUIRE(groups.size() == 1);
  CHECK(groups[0].ordinal == 4);
  CHECK(groups[0].voices == std::vector<std::vector<int64_t>>{{0, 1}, {2}});
  CHECK_THROWS_AS(prompt_groups(e, 1), ShapeError);
}

}  // namespace praetor
