#include "core/collective/collective.h"

#include <chrono>

#include "core/base/error.h"
#include "tests/core/collective/transcript.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"

namespace praetor {

using std::chrono::milliseconds;
using testing::run_ranks;
using testing::uneven;

namespace {

const std::vector<std::string>& none(int32_t world) {
  static const std::vector<std::string> kNone[] = {
      {}, {""}, {"", ""}, {"", "", ""}, {"", "", "", ""}};
  return kNone[world];
}

template <typename T>
void check_sums(int32_t world, size_t n) {
  const auto w = static_cast<size_t>(world);
  // The order is rank 0, then 1, ...; any other gives other bits for most of these numbers.
  std::vector<T> wanted = uneven<T>(0, n * w);
  for (int32_t r = 1; r < world; ++r) {
    const std::vector<T> term = uneven<T>(r, n * w);
    for (size_t i = 0; i < wanted.size(); ++i) wanted[i] += term[i];
  }
  std::vector<std::vector<T>> part(w), all(w), joined(w);
  CHECK(run_ranks(world, [&](Collective& ranks) {
          const auto r = static_cast<size_t>(ranks.rank());
          part[r].resize(n);
          ranks.reduce_scatter<T>(uneven<T>(ranks.rank(), n * w), part[r]);
          all[r] = uneven<T>(ranks.rank(), n * w);
          ranks.all_reduce<T>(all[r]);
          joined[r].resize(n * w);
          std::copy(part[r].begin(), part[r].end(), joined[r].begin() + int64_t(r * n));
          ranks.all_gather<T>(std::span(joined[r]).subspan(r * n, n), joined[r]);  // in place
        }) == none(world));
  for (size_t r = 0; r < w; ++r) {
    CHECK(part[r] ==
          std::vector<T>(wanted.begin() + int64_t(r * n), wanted.begin() + int64_t((r + 1) * n)));
    CHECK(all[r] == wanted);
    CHECK(joined[r] == wanted);
  }
}

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("sums are added in rank order, bit for bit", "[core][cpu]") {
  for (const int32_t world : {1, 2, 3, 4}) {
    for (const size_t n : {0, 1, 17, 4099}) {
      check_sums<float>(world, n);
      check_sums<double>(world, n);
      check_sums<int64_t>(world, n);
    }
  }
}

TEST_CASE("another order of the same numbers has other bits", "[core][cpu]") {
  // Without this the case above would show nothing.
  const auto a = uneven<float>(0, 1000), b = uneven<float>(1, 1000), c = uneven<float>(2, 1000);
  int64_t different = 0;
  for (size_t i = 0; i < a.size(); ++i) different += (a[i] + b[i]) + c[i] != a[i] + (b[i] + c[i]);
  CHECK(different > 100);
}

TEST_CASE("ranks give bytes of their own lengths", "[core][cpu]") {
  for (const int32_t world : {1, 2, 3, 4}) {
    std::vector<std::vector<std::string>> got(static_cast<size_t>(world));
    std::vector<std::string> wanted;
    for (int32_t r = 0; r < world; ++r)
      wanted.emplace_back(static_cast<size_t>(r) * 1000, static_cast<char>('a' + r));
    CHECK(run_ranks(world, [&](Collective& ranks) {
            const auto r = static_cast<size_t>(ranks.rank());
            got[r] = ranks.all_gather_bytes(wanted[r]);
          }) == none(world));
    for (const auto& one : got) CHECK(one == wanted);
  }
}

TEST_CASE("every rank gets what the root has", "[core][cpu]") {
  for (const int32_t world : {1, 2, 3, 4}) {
    for (int32_t root = 0; root < world; ++root) {
      std::vector<std::vector<int64_t>> got(static_cast<size_t>(world));
      CHECK(run_ranks(world, [&](Collective& ranks) {
              auto& mine = got[static_cast<size_t>(ranks.rank())];
              mine = {ranks.rank(), 10 + ranks.rank()};
              ranks.broadcast<int64_t>(mine, root);
            }) == none(world));
      for (const auto& one : got) CHECK(one == std::vector<int64_t>{root, 10 + root});
    }
  }
}

TEST_CASE("a world of one is the local collective", "[core][cpu]") {
  const auto local = make_local_collective();
  CHECK(local->backend() == "local");
  CHECK(local->world_size() == 1);
  std::string threads;
  run_ranks(1, [&](Collective& ranks) { threads = testing::collective_transcript(ranks); });
  CHECK(testing::collective_transcript(*local) == threads);
}

TEST_CASE("a rank that does not come is named within the deadline", "[core][cpu]") {
  const auto group = make_thread_group(3, {.deadline = milliseconds(150)});
  std::vector<std::string> errors;
  const double waited = seconds_of([&] {
    errors = run_ranks(group, [](Collective& ranks) {
      ranks.barrier();
      if (ranks.rank() == 2) return;
      std::vector<double> sums(5);
      ranks.all_reduce<double>(sums);
    });
  });
  CHECK(waited >= 0.15);
  CHECK(waited < 5);
  CHECK(errors[2].empty());
  for (const size_t r : {0, 1}) {
    CHECK_THAT(errors[r], Catch::StartsWith("rank " + std::to_string(r) + ": all_reduce #1 of 5"));
    CHECK_THAT(errors[r], Catch::Contains("float64 timed out after 0.1"));
    CHECK_THAT(errors[r], Catch::Contains("rank 2 did not come"));
  }
  // The group stays failed, and the late rank learns why.
  const auto again = run_ranks(group, [](Collective& ranks) { ranks.barrier(); });
  CHECK_THAT(again[0], Catch::Contains("failed before") && Catch::Contains("did not come"));
  CHECK_THAT(again[2], Catch::Contains("meets another call") || Catch::Contains("gave up"));
}

TEST_CASE("all ranks that do not come are named", "[core][cpu]") {
  const auto errors = run_ranks(4,
                                [](Collective& ranks) {
                                  if (ranks.rank() == 1) ranks.barrier();
                                  if (ranks.rank() != 1)
                                    std::this_thread::sleep_for(milliseconds(300));
                                },
                                {.deadline = milliseconds(50)});
  CHECK_THAT(errors[1], Catch::Contains("ranks 0, 2, 3 did not come"));
}

TEST_CASE("ranks that call different things are told both calls", "[core][cpu]") {
  const auto operations = run_ranks(2, [](Collective& ranks) {
    std::vector<float> x(6), y(3);
    if (ranks.rank() == 0) ranks.all_reduce<float>(x);
    if (ranks.rank() == 1) ranks.reduce_scatter<float>(x, y);
  });
  CHECK_THAT(operations[0] + operations[1],
             Catch::Contains("all_reduce #0 of 6 float32 meets another call: rank 1 calls "
                             "reduce_scatter #0 of 6 float32") ||
                 Catch::Contains("reduce_scatter #0 of 6 float32 meets another call: rank 0 calls "
                                 "all_reduce #0 of 6 float32"));
  const auto counts = run_ranks(3, [](Collective& ranks) {
    std::vector<int64_t> x(ranks.rank() == 1 ? 2 : 3);
    ranks.all_reduce<int64_t>(x);
  });
  for (const std::string& error : counts) CHECK_THAT(error, Catch::Contains("another call"));
  const auto roots = run_ranks(2, [](Collective& ranks) {
    std::vector<float> x(1);
    ranks.broadcast<float>(x, ranks.rank());
  });
  for (const std::string& error : roots) CHECK_THAT(error, Catch::Contains("from rank 1"));
}

TEST_CASE("a rank that gives up or leaves ends the wait of the others at once", "[core][cpu]") {
  const double waited = seconds_of([] {
    const auto errors = run_ranks(3, [](Collective& ranks) {
      if (ranks.rank() == 1) {
        ranks.abort("no memory");
        return;
      }
      ranks.barrier();
    });
    for (const size_t r : {0, 2})
      CHECK_THAT(errors[r], Catch::Contains("rank 1 gave up: no memory"));
    auto group = make_thread_group(2, {});
    group.pop_back();
    CHECK_THROWS_WITH(group[0]->barrier(), Catch::Contains("rank 1 gave up: it has left"));
    CHECK_THROWS_AS(group[0]->barrier(), CollectiveError);
  });
  CHECK(waited < 10);
}

TEST_CASE("spans and settings that do not fit are refused before anything is sent", "[core][cpu]") {
  const auto group = make_thread_group(2, {});
  std::vector<float> three(3), two(2);
  CHECK_THROWS_WITH(group[0]->reduce_scatter<float>(three, two), Catch::Contains("come out even"));
  CHECK_THROWS_AS(group[0]->all_gather<float>(three, two), InvalidArgument);
  CHECK_THROWS_AS(group[0]->broadcast<float>(three, 2), InvalidArgument);
  CHECK(run_ranks(group, [](Collective& ranks) { ranks.barrier(); }) == none(2));
  CHECK_THROWS_AS(make_thread_group(0), InvalidArgument);
  CHECK_THROWS_AS(make_thread_group(2, {.deadline = milliseconds(0)}), InvalidArgument);
  CHECK_THROWS_AS(make_thread_group(2, {.chunk_bytes = int64_t{1} << 31}), InvalidArgument);
}

}  // namespace praetor
