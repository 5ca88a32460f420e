#include "core/model/packed.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/base/error.h"

namespace praetor {
namespace {

constexpr int64_t kLeastShared = 2;  // a beginning-of-text token alone is not worth a prefix

/// Neighbours begin .. end - 1 and the tokens that all of them begin with.
struct Run {
  size_t begin = 0, end = 0;
  int64_t shared = 0;
};

/// The cut into runs that leaves out most tokens: a run of n that shares s leaves out (n - 1) s.
std::vector<Run> best_runs(const std::vector<std::span<const int64_t>>& sequences,
                           int64_t switch_length) {
  const size_t n = sequences.size();
  std::vector<int64_t> common;  // tokens that each begins with as the one after it does
  for (size_t i = 0; i + 1 < n; ++i) {
    const auto size = [&](size_t at) { return static_cast<int64_t>(sequences[at].size()); };
    const bool apart = (size(i) > switch_length) != (size(i + 1) > switch_length);
    common.push_back(apart ? 0
                           : std::ranges::mismatch(sequences[i], sequences[i + 1]).in1 -
                                 sequences[i].begin());
  }
  std::vector<int64_t> saved(n + 1, 0);  // by the best cut of the first i
  std::vector<Run> last(n + 1);          // and its last run
  for (size_t end = 1; end <= n; ++end) {
    last[end] = {end - 1, end, 0};
    saved[end] = saved[end - 1];
    auto shared = static_cast<int64_t>(sequences[end - 1].size());
    for (size_t begin = end - 1; begin-- > 0;) {
      shared = std::min(shared, common[begin]);
      if (shared < kLeastShared) break;
      const int64_t here = saved[begin] + static_cast<int64_t>(end - begin - 1) * shared;
      if (here <= saved[end]) continue;
      saved[end] = here;
      last[end] = {begin, end, shared};
    }
  }
  std::vector<Run> out;
  for (size_t end = n; end > 0; end = out.back().begin) out.push_back(last[end]);
  std::ranges::reverse(out);
  return out;
}

}  // namespace

PackedTokens pack(const std::vector<std::vector<int64_t>>& sequences) {
  PackedTokens out;
  out.offsets.push_back(0);
  for (const auto& sequence : sequences) {
    out.offsets.push_back(out.offsets.back() + static_cast<int64_t>(sequence.size()));
  }
  out.tokens = at::empty({out.total()}, at::dtype(at::kLong));
  int64_t* to = out.tokens.mutable_data_ptr<int64_t>();
  for (const auto& sequence : sequences) to = std::copy(sequence.begin(), sequence.end(), to);
  return out;
}

at::Tensor SharedPack::last() const {
  at::Tensor out = at::empty({sequences()}, at::dtype(at::kLong));
  for (int64_t i = 0; i < sequences(); ++i) {
    const int64_t length = places[static_cast<size_t>(i)].length;
    if (length == 0) throw InvalidArgument("sequence ", i, " of a batch is empty");
    out.mutable_data_ptr<int64_t>()[i] = row(i, length - 1);
  }
  return out;
}

SharedPack pack_shared(const std::vector<std::span<const int64_t>>& sequences,
                       int64_t switch_length) {
  const std::vector<Run> runs = best_runs(sequences, switch_length);
  SharedPack out;
  std::vector<int64_t> tokens;
  out.packed.offsets.push_back(0);
  const auto put = [&](std::span<const int64_t> part, int64_t prefix) {
    tokens.insert(tokens.end(), part.begin(), part.end());
    out.packed.offsets.push_back(static_cast<int64_t>(tokens.size()));
    out.packed.prefix.push_back(prefix);
  };
  bool any = false;
  for (const Run& run : runs) {
    const auto first = static_cast<int64_t>(tokens.size());
    const int64_t prefix = run.shared > 0 ? out.packed.sequences() : -1;
    const auto shared = static_cast<size_t>(run.shared);
    if (run.shared > 0) put(sequences[run.begin].first(shared), -1);
    any = any || run.shared > 0;
    for (size_t i = run.begin; i < run.end; ++i) {
      out.places.push_back({.shared = run.shared,
                            .prefix = first,
                            .own = static_cast<int64_t>(tokens.size()),
                            .length = static_cast<int64_t>(sequences[i].size())});
      put(sequences[i].subspan(shared), prefix);
    }
  }
  if (!any) out.packed.prefix.clear();
  out.packed.tokens = at::empty({out.packed.total()}, at::dtype(at::kLong));
  std::ranges::copy(tokens, out.packed.tokens.mutable_data_ptr<int64_t>());
  return out;
}

}  // namespace praetor
