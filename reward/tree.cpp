#include "reward/tree.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "core/base/error.h"

namespace praetor {

namespace {

/// k verdicts pass, or all of them where fewer apply; the k-th highest score.
void choose(const std::vector<PartOutcome>& outcomes, int64_t k, PartScore& out) {
  std::vector<double> scores;
  int64_t passed = 0;
  for (const PartOutcome& one : outcomes) {
    if (one.not_applicable) continue;
    scores.push_back(one.score);
    passed += one.verdict.value_or(false) ? 1 : 0;
  }
  const auto count = static_cast<int64_t>(scores.size());
  const int64_t wanted = std::min(k, count);
  std::ranges::sort(scores, std::greater<>());
  out.score = scores[static_cast<size_t>(wanted - 1)];
  out.verdict = passed >= wanted;
  out.reason = str(passed, " of ", count, " pass, ", wanted, " wanted");
}

void gate(const std::vector<PartOutcome>& outcomes, double cap, PartScore& out) {
  const auto held = [](const PartOutcome& one) { return one.verdict.value_or(true); };
  const double value = outcomes.back().score;
  out.verdict = std::all_of(outcomes.begin(), outcomes.end() - 1, held);
  out.score = *out.verdict ? value : std::min(value, cap);
  out.reason = *out.verdict ? "open" : str("closed: at most ", cap);
}

void sum(const PartConfig& tree, const std::vector<PartOutcome>& outcomes, PartScore& out) {
  double total = 0.0;
  bool held = true;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    total += tree.children[i].weight * outcomes[i].score;
    held = held && outcomes[i].verdict.value_or(true);
  }
  out.score = total;
  if (tree.gives_verdict()) out.verdict = held;
}

}  // namespace

PartOutcome outcome_of(const PartConfig& part, const PartScore& result) {
  if (result.error.empty()) {
    return {.failed = false,
            .not_applicable = result.not_applicable,
            .score = *result.score,
            .verdict = result.verdict};
  }
  if (part.on_error == OnError::kValue) return {.score = part.error_value, .verdict = std::nullopt};
  if (part.on_error == OnError::kViolated) return {.score = 0.0, .verdict = false};
  return {.failed = true, .verdict = std::nullopt};
}

PartScore tree_result(const PartConfig& tree, std::span<const PartScore> children) {
  PRAETOR_CHECK(tree.tree && children.size() == tree.children.size() && !children.empty(),
                "part ",
                tree.name,
                " is no tree of ",
                children.size());
  PartScore out;
  std::vector<PartOutcome> outcomes;
  for (size_t i = 0; i < children.size(); ++i) {
    outcomes.push_back(outcome_of(tree.children[i], children[i]));
    if (outcomes.back().failed && out.error.empty())
      out.error = str("part \"", tree.children[i].name, "\": ", children[i].error);
  }
  if (!out.error.empty()) return out;
  if (std::ranges::all_of(outcomes, &PartOutcome::not_applicable)) {
    out.score = 0.0;
    out.not_applicable = true;
    out.reason = "not applicable: no part of it is";
    return out;
  }
  switch (tree.tree->kind) {
    case TreeKind::kAllOf:
    case TreeKind::kAnyOf:
    case TreeKind::kKOfN:
      choose(outcomes, tree.tree->k, out);
      break;
    case TreeKind::kGate:
      gate(outcomes, tree.tree->cap, out);
      break;
    case TreeKind::kSum:
      sum(tree, outcomes, out);
      break;
  }
  return out;
}

}  // namespace praetor
