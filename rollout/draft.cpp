#include "rollout/draft.h"

#include <algorithm>

namespace praetor {
namespace {

constexpr size_t kShortest = 2;
constexpr size_t kLongest = 4;

}  // namespace

void guess_next(std::span<const int64_t> tokens, int64_t most, std::vector<int64_t>& draft) {
  draft.clear();
  if (most < 1 || tokens.size() <= kShortest) return;
  size_t best = kShortest - 1;  // tokens that agree
  size_t after = 0;
  // The longest agreement counts, of equal ones the last.
  for (size_t end = tokens.size() - 1; end >= kShortest && best < kLongest; --end) {
    size_t same = 0;
    while (same < std::min(end, kLongest) &&
           tokens[end - 1 - same] == tokens[tokens.size() - 1 - same]) {
      ++same;
    }
    if (same <= best) continue;
    best = same;
    after = end;
  }
  if (after == 0) return;
  const size_t count = std::min(static_cast<size_t>(most), tokens.size() - after);
  const auto next = tokens.subspan(after, count);
  draft.assign(next.begin(), next.end());
}

}  // namespace praetor
