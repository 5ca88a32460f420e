#include "core/collective/membership.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/error.h"

namespace praetor {

Membership Membership::whole(int32_t rank, int32_t world_size) {
  if (world_size < 1 || rank < 0 || rank >= world_size)
    throw InvalidArgument("collective: rank ", rank, " of ", world_size, " is not a rank");
  Membership out;
  out.members.resize(static_cast<size_t>(world_size));
  std::iota(out.members.begin(), out.members.end(), 0);
  out.rank = rank;
  return out;
}

Membership Membership::part(const Membership& whole,
                            const std::string& name,
                            std::span<const int64_t> wishes) {
  const auto wish = [&](int32_t rank, size_t what) {
    return wishes[3 * static_cast<size_t>(rank) + what];
  };
  std::vector<std::pair<int64_t, int32_t>> order;  // key, rank
  Membership out;
  out.name = name;
  for (int32_t r = 0; r < whole.world_size(); ++r) {
    if (wish(r, 0) == wish(whole.rank, 0)) order.emplace_back(wish(r, 1), r);
    // Ranks that share two groups have made both splits, one after the other.
    out.id = std::max(out.id, wish(r, 2) + 1);
  }
  std::ranges::sort(order);
  for (const auto& [key, rank] : order) {
    if (rank == whole.rank) out.rank = out.world_size();
    out.members.push_back(whole.global(rank));
  }
  return out;
}

std::string Membership::text() const {
  return id == 0 ? "" : str("group ", name, " of ", ranks_text(members));
}

std::string Membership::who() const {
  return str("rank ", global(rank), id == 0 ? "" : ", ", text());
}

std::string ranks_text(const std::vector<int32_t>& ranks) {
  constexpr size_t kFirst = 5, kLast = 2;
  std::string out = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (ranks.size() > kFirst + kLast + 1 && i == kFirst) {
      out += ", ...";
      i = ranks.size() - kLast;
    }
    out += (i > 0 ? ", " : "") + str(ranks[i]);
  }
  return out;
}

}  // namespace praetor
