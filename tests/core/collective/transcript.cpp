#include "tests/core/collective/transcript.h"

#include "core/base/random.h"
#include "core/base/sha256.h"
#include "core/collective/grid.h"

namespace praetor::testing {

template <typename T>
std::vector<T> uneven(int32_t rank, size_t count) {
  RandomStream numbers({.job_seed = 7, .sample_index = static_cast<uint32_t>(rank)});
  std::vector<T> out(count);
  for (T& x : out) {
    const auto digits = static_cast<double>(numbers.below(1 << 24)) - (1 << 23);
    const auto scale = static_cast<double>(uint64_t{1} << numbers.below(20));
    if constexpr (std::is_integral_v<T>) {
      x = static_cast<T>(static_cast<int64_t>(digits * scale));
    } else {
      x = static_cast<T>(digits * scale / 3);
    }
  }
  return out;
}

template std::vector<float> uneven<float>(int32_t, size_t);
template std::vector<double> uneven<double>(int32_t, size_t);
template std::vector<int64_t> uneven<int64_t>(int32_t, size_t);
template std::vector<int32_t> uneven<int32_t>(int32_t, size_t);
template std::vector<c10::BFloat16> uneven<c10::BFloat16>(int32_t, size_t);

namespace {

/// From rank to rank, each time with this rank's own added.
template <typename T>
void pass_round(Collective& ranks, std::vector<T> own, Sha256& digest) {
  std::vector<T> seen(own.size());
  const int32_t rank = ranks.rank(), world = ranks.world_size();
  if (world == 1) return;
  if (rank > 0) ranks.receive<T>(seen, rank - 1);
  for (size_t i = 0; i < own.size(); ++i) {
    if constexpr (std::is_integral_v<T>) {
      own[i] ^= seen[i];
    } else {
      own[i] += seen[i];
    }
  }
  ranks.send<T>(own, (rank + 1) % world);
  if (rank == 0) ranks.receive<T>(seen, world - 1);
  digest.update(std::as_bytes(std::span(seen)));
}

template <typename T>
void sums(Collective& ranks, Sha256& digest) {
  const auto world = static_cast<size_t>(ranks.world_size());
  for (const size_t n : {0, 1, 5, 1000, 7001}) {
    std::vector<T> part(n);
    ranks.reduce_scatter<T>(uneven<T>(ranks.rank(), n * world), part);
    digest.update(std::as_bytes(std::span(part)));
    std::vector<T> all = uneven<T>(ranks.rank(), n);
    ranks.all_reduce<T>(all);
    digest.update(std::as_bytes(std::span(all)));
    std::vector<T> joined(n * world);
    ranks.all_gather<T>(part, joined);
    digest.update(std::as_bytes(std::span(joined)));
    ranks.broadcast<T>(all, ranks.world_size() - 1);
    digest.update(std::as_bytes(std::span(all)));
    ranks.all_to_all<T>(uneven<T>(ranks.rank(), n * world), joined);
    digest.update(std::as_bytes(std::span(joined)));
    // Two at once, and a blocking one behind them.
    const std::vector<T> whole = uneven<T>(ranks.rank() + 1, n * world);
    const auto sum = ranks.start_reduce_scatter<T>(whole, part);
    const auto gather = ranks.start_all_gather<T>(all, joined);
    ranks.barrier();
    gather->wait();
    sum->wait();
    digest.update(std::as_bytes(std::span(part))).update(std::as_bytes(std::span(joined)));
    pass_round<T>(ranks, all, digest);
  }
}

}  // namespace

std::string collective_transcript(Collective& ranks) {
  Sha256 digest;
  sums<float>(ranks, digest);
  sums<double>(ranks, digest);
  sums<int64_t>(ranks, digest);
  sums<int32_t>(ranks, digest);
  sums<c10::BFloat16>(ranks, digest);
  for (const size_t unit : {0, 1, 300, 100000}) {
    const std::string mine(unit * static_cast<size_t>(ranks.rank()),
                           static_cast<char>('a' + ranks.rank()));
    for (const std::string& one : ranks.all_gather_bytes(mine)) digest.update(one).update("|");
  }
  std::vector<std::byte> bytes(77, static_cast<std::byte>(ranks.rank()));
  ranks.broadcast<std::byte>(bytes);
  digest.update(bytes);
  ranks.barrier();
  return digest.hex();
}

std::string group_transcript(Collective& ranks) {
  Sha256 digest;
  const int32_t world = ranks.world_size();
  const auto odd = ranks.split("odd", ranks.rank() % 2, -ranks.rank());
  digest.update(collective_transcript(*odd));
  for (int32_t width = 1; width <= world; ++width) {
    if (world % width != 0) continue;
    const CollectiveGrid grid = make_grid(ranks, width);
    const CollectiveGrid finer = make_grid(*grid.row, 1);
    digest.update(collective_transcript(*grid.column)).update(collective_transcript(*finer.column));
    // Two groups in the background at once, and the whole before them.
    const size_t n = 3000;
    std::vector<float> part(n), joined(n * static_cast<size_t>(world / width));
    const auto whole = uneven<float>(ranks.rank(), n * static_cast<size_t>(width));
    const auto own = uneven<float>(ranks.rank() + 1, n);
    const auto sum = grid.row->start_reduce_scatter<float>(whole, part);
    const auto gather = grid.column->start_all_gather<float>(own, joined);
    ranks.barrier();
    gather->wait();
    sum->wait();
    digest.update(std::as_bytes(std::span(part))).update(std::as_bytes(std::span(joined)));
  }
  ranks.barrier();
  return digest.hex();
}

}  // namespace praetor::testing
