// The NCCL that other tests take for one (tests/support/processor_communicator.h): what it computes
// is what the collectives over threads compute.
#include <sys/mman.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/collective/nccl_collective.h"
#include "tests/support/catch.h"
#include "tests/support/processor_communicator.h"
#include "tests/support/ranks.h"

namespace praetor {

using testing::run_ranks;

namespace {

constexpr size_t kArena = size_t{1} << 22;

std::byte* pages(int protection) {
  void* const out = ::mmap(nullptr, kArena, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (out == MAP_FAILED) throw InternalError("no pages");
  return static_cast<std::byte*>(out);
}

/// A GPU's addresses, which nobody can read, and where the bytes behind them are.
std::byte* const kShown = pages(PROT_NONE);
std::byte* const kHidden = pages(PROT_READ | PROT_WRITE);

void* behind(void* address) {
  auto* const at = static_cast<std::byte*>(address);
  return at >= kShown && at < kShown + kArena ? kHidden + (at - kShown) : address;
}

/// Memory of one rank for arrays of `Element`s, by what a collective is told.
class Memory {
 public:
  Memory(int32_t rank, bool hidden)
      : own_(hidden ? 0 : kArena / 4),
        shown_(hidden ? kShown + kArena / 4 * static_cast<size_t>(rank) : own_.data()) {}
  template <typename T>
  std::span<T> array(int64_t count) {
    auto* const out = reinterpret_cast<T*>(shown_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    if (used_ > kArena / 4) throw InternalError("the arena is full");
    return {out, static_cast<size_t>(count)};
  }
  template <typename T>
  static T* real(std::span<T> array) {
    return static_cast<T*>(behind(array.data()));
  }

 private:
  std::vector<std::byte> own_;
  std::byte* shown_;
  size_t used_ = 0;
};

/// Numbers whose sum depends on the order.
template <typename T>
std::span<T> numbers(Memory& memory, int32_t rank, int64_t count, int64_t salt) {
  const auto out = memory.array<T>(count);
  for (int64_t i = 0; i < count; ++i) {
    const auto k = static_cast<double>((7 * rank + 3 * i + salt) % 11 - 5);
    if constexpr (std::same_as<T, std::byte>) {
      Memory::real(out)[i] = static_cast<std::byte>(static_cast<int>(k) * 13 + rank);
    } else if constexpr (std::same_as<T, int64_t> || std::same_as<T, int32_t>) {
      Memory::real(out)[i] = static_cast<T>(k * 1e8) * 19;  // of 32 bits the sum wraps
    } else {
      Memory::real(out)[i] = static_cast<T>(k * std::pow(10.0, static_cast<double>(i % 9 - rank)));
    }
  }
  return out;
}

template <typename T>
void add(std::string& to, std::span<T> result) {
  to.append(reinterpret_cast<const char*>(Memory::real(result)), result.size_bytes());
}

/// What every operation gives this rank, of vectors with n elements for each rank.
template <typename T>
std::string results(Collective& ranks, bool hidden, int64_t n) {
  const int32_t rank = ranks.rank(), world = ranks.world_size();
  Memory memory(rank, hidden);
  std::string out;
  const auto whole = numbers<T>(memory, rank, n * world, 1);
  const auto part = numbers<T>(memory, rank, n, 2);
  const auto all = memory.array<T>(n * world), turned = memory.array<T>(n * world);
  if constexpr (SummableElement<T>) {
    const auto sums = memory.array<T>(n), later = memory.array<T>(n);
    const auto total = numbers<T>(memory, rank, n, 3);
    ranks.reduce_scatter<T>(whole, sums);
    ranks.all_reduce<T>(total);
    const auto pending = ranks.start_reduce_scatter<T>(whole, later);
    const auto gathering = ranks.start_all_gather<T>(part, all);
    gathering->wait();
    pending->wait();
    for (const auto& each : {sums, later, total}) add(out, each);
  } else {
    ranks.all_gather<T>(part, all);
  }
  ranks.all_to_all<T>(whole, turned);
  add(out, all);
  add(out, turned);
  for (int32_t root = 0; root < world; ++root) {
    const auto values = numbers<T>(memory, rank, n, root);
    ranks.broadcast<T>(values, root);
    add(out, values);
  }
  // This rank's part in its own place.
  const auto own = numbers<T>(memory, rank, n * world, 5);
  ranks.all_gather<T>(own.subspan(static_cast<size_t>(n * rank), static_cast<size_t>(n)), own);
  add(out, own);
  return out;
}

std::string results(Collective& ranks, bool hidden, int64_t n) {
  return results<float>(ranks, hidden, n) + results<double>(ranks, hidden, n) +
         results<c10::BFloat16>(ranks, hidden, n) + results<int64_t>(ranks, hidden, n) +
         results<int32_t>(ranks, hidden, n) + results<std::byte>(ranks, hidden, n);
}

NcclGroup emulated(int32_t device) {
  return {.make_id = testing::processor_group_id,
          .join =
              [device](const std::string& id, int32_t rank, int32_t world) {
                return testing::join_processor_group(id, rank, world, device, behind);
              },
          .on_device = true};
}

}  // namespace

TEST_CASE("the emulated NCCL computes what the other collectives do, in memory nobody can read",
          "[core][cpu][cuda]") {
  const auto world = GENERATE(1, 2, 3, 4);
  // 5000: more than a socket takes at once.
  const int64_t n = world == 3 ? GENERATE(0, 1, 17, 5000) : 33;
  CAPTURE(world, n);
  std::vector<std::string> threads(static_cast<size_t>(world)), nccl = threads;
  const auto errors = run_ranks(world, [&](Collective& ranks) {
    const auto at = static_cast<size_t>(ranks.rank());
    threads[at] = results(ranks, false, n);
    const auto group =
        make_nccl_collective(ranks, emulated(ranks.rank()), {.deadline = std::chrono::seconds(60)});
    nccl[at] = results(*group, true, n);
    // What has no place of its own passes through the processor's memory.
    group->barrier();
    nccl[at] += group->all_gather_bytes(str("from ", ranks.rank())).back();
    threads[at] += str("from ", ranks.world_size() - 1);
  });
  CHECK(errors == std::vector<std::string>(static_cast<size_t>(world)));
  for (size_t r = 0; r < threads.size(); ++r) {
    CHECK(threads[r].size() > static_cast<size_t>(n * world * 27));
    CHECK(nccl[r] == threads[r]);
  }
}

TEST_CASE("ranks of the emulated NCCL that call different things are told so",
          "[core][cpu][cuda]") {
  using Catch::Contains;
  const auto errors = run_ranks(2, [&](Collective& ranks) {
    const auto group =
        make_nccl_collective(ranks, emulated(ranks.rank()), {.deadline = std::chrono::seconds(60)});
    Memory memory(ranks.rank(), true);
    const auto values = numbers<float>(memory, ranks.rank(), 4, 0);
    if (ranks.rank() == 0) {
      group->all_reduce<float>(values);
    } else {
      group->all_reduce<float>(values.subspan(1));
    }
  });
  CHECK_THAT(errors[0],
             Contains("NCCL: rank 1 is at operation 2 #1 of 3 elements, this one at operation 2 #1 "
                      "of 4 elements (rank 1 waits in all_reduce #0 of 3 float32 over nccl)"));
  CHECK_THAT(errors[1],
             Contains("rank 0 gave up: rank 0: all_reduce #0 of 4 float32: NCCL: rank 1 is at"));
}

TEST_CASE("a rank that has left the emulated NCCL ends the others' work", "[core][cpu][cuda]") {
  using Catch::Contains;
  const auto errors = run_ranks(3, [&](Collective& ranks) {
    const auto group =
        make_nccl_collective(ranks, emulated(ranks.rank()), {.deadline = std::chrono::seconds(60)});
    if (ranks.rank() == 1) return;
    group->barrier();
  });
  CHECK_THAT(errors[0],
             Contains("barrier #0: NCCL: rank 1 has gone (rank") && Contains(" not answer)"));
  CHECK(errors[1].empty());
  CHECK_THAT(errors[2], Contains("rank 0 gave up: rank 0: barrier #0: NCCL: rank 1 has gone"));
}

}  // namespace praetor
