#include "reward/tree.h"

#include <optional>
#include <string>
#include <vector>

#include "tests/support/catch.h"

namespace praetor {

namespace {

PartScore scored(double score, std::optional<bool> verdict) {
  return {.score = score, .verdict = verdict};
}

PartScore absent() {
  return {.score = 0.0, .verdict = std::nullopt, .not_applicable = true};
}

PartScore broken() {
  return {.score = std::nullopt, .verdict = std::nullopt, .error = "no such field"};
}

PartConfig tree_of(TreeRule rule, size_t children) {
  PartConfig tree;
  tree.name = "tree";
  tree.tree = rule;
  for (size_t i = 0; i < children; ++i) {
    PartConfig& child = tree.children.emplace_back();
    child.name = str("c", i);
    child.weight = static_cast<double>(i + 1);
  }
  return tree;
}

PartScore chosen(int64_t k, const std::vector<PartScore>& children) {
  return tree_result(tree_of({.kind = TreeKind::kKOfN, .k = k}, children.size()), children);
}

}  // namespace

TEST_CASE("k of n is the k-th highest score and k verdicts", "[reward][cpu]") {
  const std::vector<PartScore> three = {scored(0.2, false), scored(0.9, true), scored(0.5, true)};
  CHECK(chosen(1, three).score == 0.9);  // any_of
  CHECK(chosen(2, three).score == 0.5);
  CHECK(chosen(3, three).score == 0.2);  // all_of
  CHECK(chosen(1, three).verdict == true);
  CHECK(chosen(2, three).verdict == true);
  CHECK(chosen(3, three).verdict == false);
  CHECK(chosen(3, three).reason == "2 of 3 pass, 3 wanted");
}

TEST_CASE("what does not apply is left out of a tree", "[reward][cpu]") {
  const std::vector<PartScore> two = {scored(0.2, true), absent(), scored(0.9, false)};
  CHECK(chosen(3, two).verdict == false);
  CHECK(chosen(3, two).score == 0.2);
  CHECK(chosen(1, two).score == 0.9);
  CHECK(chosen(3, {scored(0.2, true), absent(), absent()}).verdict == true);
  // Absent is not passed: any_of has nothing to stand on.
  CHECK(chosen(1, {scored(0.2, false), absent()}).verdict == false);
  const PartScore none = chosen(1, {absent(), absent()});
  CHECK(none.not_applicable);
  CHECK(none.score == 0.0);
  CHECK_FALSE(none.verdict);
}

TEST_CASE("a gate lets its value through, or caps it", "[reward][cpu]") {
  const PartConfig gate = tree_of({.kind = TreeKind::kGate, .cap = -1.0}, 3);
  const auto result = [&](PartScore a, PartScore b, PartScore value) {
    return tree_result(gate, std::vector<PartScore>{a, b, value});
  };
  const auto open = result(scored(1, true), absent(), scored(4.0, std::nullopt));
  CHECK(open.score == 4.0);
  CHECK(open.verdict == true);
  const auto closed = result(scored(1, true), scored(0, false), scored(4.0, std::nullopt));
  CHECK(closed.score == -1.0);
  CHECK(closed.verdict == false);
  CHECK(result(scored(0, false), absent(), scored(-3.0, true)).score == -3.0);  // below the cap
  // The value's own verdict does not close it.
  CHECK(result(scored(1, true), absent(), scored(4.0, false)).verdict == true);
}

TEST_CASE("a sum weighs scores, and fails by any verdict that does", "[reward][cpu]") {
  PartConfig sum = tree_of({.kind = TreeKind::kSum}, 3);
  const auto result = [&](PartScore a, PartScore b, PartScore c) {
    return tree_result(sum, std::vector<PartScore>{a, b, c});
  };
  CHECK(result(scored(1, true), scored(0.5, true), absent()).score == 2.0);
  CHECK(result(scored(1, true), scored(0.5, true), absent()).verdict == true);
  CHECK(result(scored(1, false), scored(0.5, true), scored(1, true)).verdict == false);
  CHECK(result(absent(), absent(), absent()).not_applicable);
  for (PartConfig& child : sum.children) child.model = RewardModelConfig();
  CHECK_FALSE(sum.gives_verdict());
  const auto models =
      result(scored(1, std::nullopt), scored(2, std::nullopt), scored(3, std::nullopt));
  CHECK(models.score == 14.0);
  CHECK_FALSE(models.verdict);
}

TEST_CASE("a failed part fails its tree unless it says otherwise", "[reward][cpu]") {
  PartConfig all = tree_of({.kind = TreeKind::kAllOf, .k = 2}, 2);
  const std::vector<PartScore> children = {scored(1, true), broken()};
  const PartScore failed = tree_result(all, children);
  CHECK(failed.error == "part \"c1\": no such field");
  CHECK_FALSE(failed.score);
  all.children[1].on_error = OnError::kViolated;
  const PartScore violated = tree_result(all, children);
  CHECK(violated.error.empty());
  CHECK(violated.verdict == false);
  CHECK(violated.score == 0.0);
  PartConfig sum = tree_of({.kind = TreeKind::kSum}, 2);
  sum.children[1].on_error = OnError::kValue;
  sum.children[1].error_value = 0.5;
  CHECK(tree_result(sum, children).score == 2.0);
  CHECK(tree_result(sum, children).verdict == true);
}

}  // namespace praetor
