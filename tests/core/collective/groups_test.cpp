// Groups that a split makes: who is in them, that they do not hinder each other, and that none of
// them waits for a rank that has failed in another.
#include <chrono>
#include <thread>

#include "core/base/error.h"
#include "core/collective/grid.h"
#include "core/collective/membership.h"
#include "tests/core/collective/transcript.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"

namespace praetor {

using std::chrono::milliseconds;
using testing::run_ranks;

namespace {

std::vector<std::string> none(int32_t world) {
  return std::vector<std::string>(static_cast<size_t>(world));
}

std::string text(const std::vector<int32_t>& ranks) {
  std::string out;
  for (const int32_t rank : ranks) out += str(rank, " ");
  return out;
}

/// What an error of `work` says on each rank of a grid of two rows of two.
std::vector<std::string> errors_in_grid(
    const std::function<void(Collective& whole, CollectiveGrid& grid)>& work,
    CollectiveOptions options) {
  return run_ranks(
      4,
      [&](Collective& ranks) {
        CollectiveGrid grid = make_grid(ranks, 2, "shards", "replicas");
        work(ranks, grid);
      },
      options);
}

}  // namespace

TEST_CASE("ranks of one colour are a group, in the order of their keys", "[core][cpu]") {
  std::vector<std::string> seen(4);
  CHECK(run_ranks(4, [&](Collective& ranks) {
          const int32_t r = ranks.rank();
          const auto thirds = ranks.split("thirds", r % 3);
          const auto turned = ranks.split("turned", 7, -r);
          const auto equal_keys = ranks.split("equal", r / 2, 5);
          const auto again = turned->split("again", turned->rank() / 2);
          std::vector<int64_t> sum{r};
          thirds->all_reduce<int64_t>(sum);
          seen[static_cast<size_t>(r)] =
              str(text(thirds->members()), "sum ", sum[0], ", ", text(turned->members()), "as ") +
              str(turned->rank(), ", ", text(equal_keys->members()), ", ", text(again->members())) +
              str("as ", again->rank(), " ", again->global_rank(), " ", again->backend());
        }) == none(4));
  CHECK(seen == std::vector<std::string>{"0 3 sum 3, 3 2 1 0 as 3, 0 1 , 1 0 as 1 0 threads",
                                         "1 sum 1, 3 2 1 0 as 2, 0 1 , 1 0 as 0 1 threads",
                                         "2 sum 2, 3 2 1 0 as 1, 2 3 , 3 2 as 1 2 threads",
                                         "0 3 sum 3, 3 2 1 0 as 0, 2 3 , 3 2 as 0 3 threads"});
}

TEST_CASE("a group is as good as a whole of its size", "[core][cpu]") {
  for (const int32_t world : {1, 2, 3, 4}) {
    std::vector<std::string> groups(static_cast<size_t>(world)), wholes;
    CHECK(run_ranks(world, [&](Collective& ranks) {
            const auto all = ranks.split("all", 0);
            groups[static_cast<size_t>(ranks.rank())] = testing::collective_transcript(*all);
          }) == none(world));
    wholes.resize(groups.size());
    run_ranks(world, [&](Collective& ranks) {
      wholes[static_cast<size_t>(ranks.rank())] = testing::collective_transcript(ranks);
    });
    CHECK(groups == wholes);
    CHECK(groups[0] != none(1)[0]);
  }
}

TEST_CASE("groups of one rank neither mix their messages nor wait for each other's background",
          "[core][cpu]") {
  for (const int32_t world : {1, 2, 4}) {
    for (int32_t width = 1; width <= world; width *= 2) {
      std::vector<int> right(static_cast<size_t>(world));
      CHECK(run_ranks(world, [&](Collective& ranks) {
              const CollectiveGrid grid = make_grid(ranks, width);
              const int64_t r = ranks.rank(), row = r / width, column = r % width;
              const auto rows = static_cast<size_t>(world / width), w = static_cast<size_t>(width);
              const std::vector<int64_t> own{r};
              std::vector<int64_t> in_row(w), in_column(rows), all(static_cast<size_t>(world));
              // Two in the background, in two groups, and a blocking one of the whole before them.
              const auto first = grid.row->start_all_gather<int64_t>(own, in_row);
              const auto second = grid.column->start_all_gather<int64_t>(own, in_column);
              ranks.all_gather<int64_t>(own, all);
              second->wait();
              first->wait();
              bool good = grid.row->rank() == column && grid.column->rank() == row;
              for (size_t i = 0; i < w; ++i) good &= in_row[i] == row * width + int64_t(i);
              for (size_t i = 0; i < rows; ++i) good &= in_column[i] == int64_t(i) * width + column;
              right[static_cast<size_t>(r)] = good;
            }) == none(world));
      CHECK(right == std::vector<int>(static_cast<size_t>(world), 1));
    }
  }
}

TEST_CASE("a group's background goes on while the rank waits in another group", "[core][cpu]") {
  // Rank 0's gather in the group of both waits for rank 1, which comes to it only after the
  // barrier. One background for all groups would never end.
  CHECK(run_ranks(2,
                  [](Collective& ranks) {
                    const auto a = ranks.split("a", 0);
                    const auto b = ranks.split("b", 0);
                    const std::vector<int64_t> own{1};
                    std::vector<int64_t> all(2);
                    std::unique_ptr<PendingCollective> pending;
                    if (ranks.rank() == 0) pending = a->start_all_gather<int64_t>(own, all);
                    b->barrier();
                    if (ranks.rank() == 1) pending = a->start_all_gather<int64_t>(own, all);
                    pending->wait();
                  },
                  {.deadline = milliseconds(5000)}) == none(2));
}

TEST_CASE("errors in a group name it, and ranks by their number in the whole", "[core][cpu]") {
  const auto late = errors_in_grid(
      [](Collective& whole, CollectiveGrid& grid) {
        whole.set_step(12);
        std::vector<float> x(5);
        if (whole.rank() == 3) std::this_thread::sleep_for(milliseconds(1200));
        if (whole.rank() == 2) grid.row->all_reduce<float>(x);
      },
      {.deadline = milliseconds(300)});
  CHECK_THAT(late[2],
             Catch::StartsWith("rank 2, group shards of ranks 2, 3: all_reduce #0 of 5 float32 in "
                               "step 12 timed out after 0.3") &&
                 Catch::Contains("(rank 3 did not come)"));
  const auto other = errors_in_grid(
      [](Collective& whole, CollectiveGrid& grid) {
        std::vector<float> x(5);
        if (whole.rank() == 2) grid.row->broadcast<float>(x, 1);
        if (whole.rank() == 3) grid.row->all_reduce<float>(x);
      },
      {.deadline = milliseconds(60'000)});
  CHECK_THAT(other[2] + other[3],
             Catch::Contains("rank 2, group shards of ranks 2, 3: broadcast #0 of 5 float32 from "
                             "rank 3 meets another call: rank 3 calls all_reduce #0 of 5") ||
                 Catch::Contains("rank 3, group shards of ranks 2, 3: all_reduce #0 of 5 float32 "
                                 "meets another call: rank 2 calls broadcast #0 of 5"));
  const auto debugged = errors_in_grid(
      [](Collective& whole, CollectiveGrid& grid) {
        std::vector<float> x(5);
        grid.column->barrier();
        whole.barrier();
        if (whole.rank() == 0) grid.row->broadcast<float>(x, 1);
        if (whole.rank() == 1) grid.row->all_reduce<float>(x);
      },
      {.deadline = milliseconds(60'000), .debug = true});
  CHECK_THAT(debugged[0] + debugged[1],
             Catch::Contains("the last calls of rank 0: split #0 of 3 int64, split #1 of 3 int64, "
                             "replicas: barrier #0, barrier #2, shards: broadcast #0 of 5 float32 "
                             "from rank 1") ||
                 Catch::Contains("the last calls of rank 1: split #0 of 3 int64, split #1 of 3 "
                                 "int64, replicas: barrier #0, barrier #2, shards: all_reduce #0"));
}

TEST_CASE("who fails in one group is not waited for in another", "[core][cpu]") {
  const auto start = std::chrono::steady_clock::now();
  // Rank 1 gives up in its row. Rank 0 waits for it there; rank 2 waits for rank 0, down the
  // column; rank 3 waits for rank 2, in the other row, which has no rank that gave up.
  const auto errors = errors_in_grid(
      [](Collective& whole, CollectiveGrid& grid) {
        if (whole.rank() == 1) grid.row->abort("no memory");
        if (whole.rank() == 0) grid.row->barrier();
        if (whole.rank() == 2) grid.column->barrier();
        if (whole.rank() == 3) grid.row->barrier();
        if (whole.rank() == 1) whole.barrier();
      },
      {.deadline = milliseconds(60'000)});
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  for (const std::string& error : errors) CHECK_THAT(error, Catch::Contains("no memory"));
  CHECK_THAT(errors[0], Catch::Contains("group shards of ranks 0, 1: barrier #0"));
  CHECK_THAT(errors[1], Catch::Contains("rank 1: barrier #2: the group has failed before"));
  CHECK_THAT(errors[2], Catch::Contains("rank 2, group replicas of ranks 0, 2: barrier #0"));
  CHECK_THAT(errors[3], Catch::Contains("rank 3, group shards of ranks 2, 3: barrier #0"));
}

TEST_CASE("a time-out in one group ends what the others wait for, started or not", "[core][cpu]") {
  std::vector<std::string> started(4);
  const auto errors = errors_in_grid(
      [&](Collective& whole, CollectiveGrid& grid) {
        const std::vector<float> own(3);
        std::vector<float> all(6);
        if (whole.rank() == 1) std::this_thread::sleep_for(milliseconds(2400));
        if (whole.rank() == 1) return;
        // Rank 0 is the first whose time runs out.
        if (whole.rank() == 3) std::this_thread::sleep_for(milliseconds(500));
        const auto pending = grid.column->start_all_gather<float>(own, all);
        try {
          if (whole.rank() == 2) std::this_thread::sleep_for(milliseconds(500));
          (whole.rank() == 2 ? whole : *grid.row).barrier();
        } catch (...) {
          try {
            pending->wait();
          } catch (const CollectiveError& error) {
            started[static_cast<size_t>(whole.rank())] = error.what();
          }
          throw;
        }
      },
      {.deadline = milliseconds(800)});
  CHECK_THAT(errors[0], Catch::Contains("barrier #0 timed out") && Catch::Contains("rank 1 did"));
  CHECK(started[0].empty());  // rank 2 has come to it
  CHECK_THAT(errors[2],
             Catch::Contains("rank 2: barrier #2: rank 0 gave up: rank 0, group shards"));
  CHECK_THAT(errors[3], Catch::Contains("rank 3, group shards of ranks 2, 3: barrier #0"));
  CHECK_THAT(started[3], Catch::Contains("group replicas of ranks 1, 3: all_gather #0"));
}

TEST_CASE("a rank is named by those as well that wait for one which waits for it", "[core][cpu]") {
  // Rank 3 does not come. Rank 0's time runs out first: it waits for rank 2, down the column, which
  // has come to its row a little later.
  const auto errors = errors_in_grid(
      [](Collective& whole, CollectiveGrid& grid) {
        if (whole.rank() == 3) std::this_thread::sleep_for(milliseconds(2400));
        if (whole.rank() == 3) return;
        if (whole.rank() != 0) std::this_thread::sleep_for(milliseconds(250));
        (whole.rank() == 0 ? *grid.column : whole.rank() == 1 ? whole : *grid.row).barrier();
      },
      {.deadline = milliseconds(1000)});
  const auto* const late = "rank 0, group replicas of ranks 0, 2: barrier #0 timed out after 1";
  const auto* const named =
      "(rank 3 did not come; rank 2 waits in barrier #0 over threads in group shards of ranks 2, "
      "3)";
  for (const size_t r : {0, 1, 2})
    CHECK_THAT(errors[r], Catch::Contains(late) && Catch::Contains(named));
  CHECK_THAT(errors[1], Catch::Contains("rank 1: barrier #2: rank 0 gave up: "));
  CHECK_THAT(errors[2],
             Catch::Contains("rank 2, group shards of ranks 2, 3: barrier #0: rank 0 gave up: "));
  // All wait, in calls that do not fit: the one that it lacks is named, with what that waits in.
  const auto crossed = errors_in_grid(
      [](Collective& whole, CollectiveGrid& grid) {
        if (whole.rank() > 0) std::this_thread::sleep_for(milliseconds(150));
        (whole.rank() == 0 ? *grid.column : whole.rank() == 2 ? *grid.row : whole).barrier();
      },
      {.deadline = milliseconds(1000)});
  CHECK_THAT(crossed[0],
             Catch::Contains("(rank 2 did not come; rank 2 waits in barrier #0 over threads in "
                             "group shards of ranks 2, 3)"));
}

TEST_CASE("a grid that does not come out even is refused", "[core][cpu]") {
  for (const std::string& error : run_ranks(3, [](Collective& ranks) { make_grid(ranks, 2); }))
    CHECK(error == "a grid of 3 ranks in rows of 2 does not come out even");
  CHECK_THROWS_AS(make_grid(*make_local_collective(), 0), InvalidArgument);
  const auto local = make_local_collective();
  const CollectiveGrid alone = make_grid(*local, 1);
  CHECK(alone.row->backend() == "local");
  CHECK(alone.column->world_size() == 1);
}

TEST_CASE("a long list of ranks is cut", "[core][cpu]") {
  CHECK(ranks_text({4}) == "rank 4");
  CHECK(ranks_text({0, 1, 2, 3, 4, 5, 6, 7}) == "ranks 0, 1, 2, 3, 4, 5, 6, 7");
  CHECK(ranks_text({0, 1, 2, 3, 4, 5, 6, 7, 8}) == "ranks 0, 1, 2, 3, 4, ..., 7, 8");
}

}  // namespace praetor
