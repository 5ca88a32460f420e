#include "tests/core/collective/transcript.h"

#include "core/base/random.h"
#include "core/base/sha256.h"

namespace praetor::testing {

template <typename T>
std::vector<T> uneven(int32_t rank, size_t count) {
  RandomStream numbers({.job_seed = 7, .sample_index = static_cast<uint32_t>(rank)});
  std::vector<T> out(count);
  for (T& x : out) {
    const auto digits = static_cast<double>(numbers.below(1 << 24)) - (1 << 23);
    const auto scale = static_cast<double>(uint64_t{1} << numbers.below(20));
    x = static_cast<T>(digits * scale) / (std::is_integral_v<T> ? 1 : 3);
  }
  return out;
}

template std::vector<float> uneven<float>(int32_t, size_t);
template std::vector<double> uneven<double>(int32_t, size_t);
template std::vector<int64_t> uneven<int64_t>(int32_t, size_t);

namespace {

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
  }
}

}  // namespace

std::string collective_transcript(Collective& ranks) {
  Sha256 digest;
  sums<float>(ranks, digest);
  sums<double>(ranks, digest);
  sums<int64_t>(ranks, digest);
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

}  // namespace praetor::testing
