#include "learners/advantage/groups.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::scored;
using testing::vec;

namespace {

const Groups kFour{{0, 1, 2, 3}};

}  // namespace

TEST_CASE("scores against their group have the worked values", "[learners][cpu]") {
  CHECK(at::allclose(group_advantage(vec({1, 0, 0, 1}), kFour, 1e-6),
                     vec({0.866024, -0.866024, -0.866024, 0.866024}),
                     0,
                     1e-6));
  CHECK(at::allclose(group_advantage(vec({1, 0, 0, 0}), kFour, 1e-6),
                     vec({1.499997, -0.499999, -0.499999, -0.499999}),
                     0,
                     1e-6));
  CHECK(at::allclose(group_advantage(vec({1, 0, 0, 0}), kFour, std::nullopt),
                     vec({0.75, -0.25, -0.25, -0.25})));
  CHECK(at::allclose(
      leave_one_out(vec({1, 2, 3, 6}), kFour), vec({-2.666667, -1.333333, 0, 4}), 0, 1e-6));
}

TEST_CASE("a group that scored alike has no advantage, to the bit", "[learners][cpu]") {
  // 0.1 is no binary fraction: the mean of three of them may differ from it.
  const at::Tensor alike = vec({0.1, 0.1, 0.1});
  const Groups groups{{0, 1, 2}};
  CHECK(at::equal(group_advantage(alike, groups, 1e-6), vec({0, 0, 0})));
  CHECK(at::equal(group_advantage(alike, groups, std::nullopt), vec({0, 0, 0})));
  CHECK(at::equal(leave_one_out(alike, groups), vec({0, 0, 0})));
}

TEST_CASE("a sample without others keeps its score", "[learners][cpu]") {
  const Groups lone{{0}};
  CHECK(group_advantage(vec({3}), lone, 1e-6)[0].item<double>() == Approx(3 / 1.000001));
  CHECK(group_advantage(vec({3}), lone, std::nullopt)[0].item<double>() == 3);
  CHECK(leave_one_out(vec({3}), lone)[0].item<double>() == 3);
}

TEST_CASE("what stands outside the groups is 0, and may be NaN", "[learners][cpu]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Groups groups{{0, 3}};
  CHECK(at::allclose(group_advantage(vec({1, nan, nan, 3}), groups, std::nullopt),
                     vec({-1, 0, 0, 1})));
  CHECK(at::allclose(leave_one_out(vec({1, nan, nan, 3}), groups), vec({-2, 0, 0, 2})));
  CHECK_THROWS_AS(leave_one_out(at::zeros({2, 2}), groups), ShapeError);
}

TEST_CASE("scores moved by a constant of the prompt leave the advantages", "[learners][cpu]") {
  const Groups groups{{0, 1, 2}, {3, 4}};
  const at::Tensor score = vec({1, 2, 4, 0.5, -1});
  const at::Tensor moved = score + vec({7, 7, 7, -3, -3});
  CHECK(at::allclose(group_advantage(moved, groups, 1e-6), group_advantage(score, groups, 1e-6)));
  CHECK(at::allclose(leave_one_out(moved, groups), leave_one_out(score, groups)));
  // And a factor leaves those divided by the deviation, and scales the others.
  CHECK(at::allclose(
      group_advantage(score * 5, groups, 1e-6), group_advantage(score, groups, 1e-6), 1e-5));
  CHECK(at::allclose(leave_one_out(score * 5, groups), leave_one_out(score, groups) * 5));
}

TEST_CASE("groups are the policy's samples of a prompt, also where some were lost",
          "[learners][cpu]") {
  Experience e = scored({1, 2, 3, 4, 5, 6}, 3);
  CHECK(groups_of(e) == Groups{{0, 1, 2}, {3, 4, 5}});
  e.voice = {0, 0, 1, 0, 1, 1};
  CHECK(groups_of(e) == Groups{{0, 1}, {3}});
  e.voice = {1, 1, 1, 0, 0, 0};
  CHECK(groups_of(e) == Groups{{3, 4, 5}});
}

TEST_CASE("groups are summed up by size, deviation and agreement", "[learners][cpu]") {
  const GroupSummary s = summarise_groups(vec({1, 3, 5, 5, 5, 9}), {{0, 1}, {2, 3, 4}, {5}});
  CHECK(s.size == 2);
  CHECK(s.deviation == Approx(std::sqrt(2.0) / 3));
  CHECK(s.equal == 0.5);
  CHECK(s.lone == 1);
  CHECK(summarise_groups(vec({}), {}).size == 0);
}

}  // namespace praetor
