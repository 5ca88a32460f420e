// Whom the nccl collective names when a wait does not end.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/collective/nccl_collective.h"
#include "tests/support/catch.h"
#include "tests/support/processor_communicator.h"
#include "tests/support/ranks.h"

namespace praetor {

using Catch::Contains;
using Catch::StartsWith;
using std::chrono::milliseconds;
using testing::run_ranks;

namespace {

constexpr milliseconds kDeadline{1500}, kLong{60'000};

/// That rank cannot join.
std::unique_ptr<Collective> join_nccl(Collective& ranks,
                                      CollectiveOptions options,
                                      int32_t broken = -1) {
  const NcclGroup group{
      .make_id = testing::processor_group_id,
      .join = [device = ranks.rank(), broken](const std::string& id, int32_t rank, int32_t world) {
        if (rank == broken) throw InvalidArgument("no GPU here");
        return testing::join_processor_group(id, rank, world, device);
      }};
  return make_nccl_collective(ranks, group, options);
}

struct Outcome {
  std::vector<std::string> errors;
  double seconds = 0;       ///< until the last had ended
  std::atomic<int> met{0};  ///< ranks that came together afterwards, where they had met at first
};

using Work = std::function<void(Collective& ranks, Collective& nccl, Collective& shards)>;

/// `work` on ranks that have a group of NCCL's beside their own, and groups of two of that. Those
/// that are absent come to no call until all others have ended.
void run_nccl(Outcome& out,
              int32_t world,
              const std::vector<int32_t>& absent,
              CollectiveOptions options,
              const Work& work) {
  std::promise<void> over;
  const std::shared_future<void> end = over.get_future().share();
  std::atomic<int32_t> left = world - static_cast<int32_t>(absent.size());
  out.errors.resize(static_cast<size_t>(world));
  run_ranks(world, [&](Collective& ranks) {
    const auto nccl = join_nccl(ranks, options);
    const auto shards = nccl->split("shards", ranks.rank() / 2);
    ranks.barrier();
    if (std::ranges::find(absent, ranks.rank()) == absent.end()) {
      const auto start = std::chrono::steady_clock::now();
      try {
        work(ranks, *nccl, *shards);
      } catch (const std::exception& caught) {
        out.errors[static_cast<size_t>(ranks.rank())] = caught.what();
      }
      if (--left == 0) {
        out.seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        over.set_value();
      }
    }
    end.wait();
    ranks.barrier();
    ++out.met;
  });
}

}  // namespace

TEST_CASE("a rank that does not come to a call over NCCL is named by all others",
          "[core][cpu][cuda]") {
  Outcome out;
  run_nccl(
      out, 4, {2}, {.deadline = kDeadline}, [](Collective&, Collective& nccl, Collective& shards) {
        nccl.set_step(7);
        std::vector<float> values(3);
        // It comes while the others ask, and is not missing.
        if (nccl.rank() == 3) std::this_thread::sleep_for(kDeadline * 2 / 3);
        try {
          nccl.all_reduce<float>(values);
        } catch (const CollectiveError& first) {
          try {
            shards.barrier();
          } catch (const CollectiveError& second) {
            throw CollectiveError(first.what(), " | ", second.what());
          }
        }
      });
  CHECK(out.seconds >= 0.5);
  CHECK(out.seconds < 10);
  CHECK(out.errors[2].empty());
  CHECK(out.met == 4);
  for (const size_t r : {0, 1, 3}) {
    CHECK_THAT(out.errors[r],
               Contains(str("rank ", r, ": all_reduce #3 of 3 float32 in step 7: ")) &&
                   Contains(": timed out after ") && Contains(" s (rank 2 does not answer)") &&
                   Contains(str(" | rank ", r, ", group shards of ranks ")) &&
                   Contains(": barrier #0 in step 7: the group has failed before: "));
  }
}

TEST_CASE("a rank that does not come to a group over NCCL is named by its number in the whole",
          "[core][cpu][cuda]") {
  Outcome out;
  run_nccl(
      out, 4, {3}, {.deadline = kDeadline}, [](Collective&, Collective& nccl, Collective& shards) {
        std::vector<float> values(3);
        if (nccl.rank() == 2) return shards.all_reduce<float>(values);
        // They wait for rank 2 as well, which knows more, and sooner.
        std::this_thread::sleep_for(kDeadline / 3);
        nccl.barrier();
      });
  CHECK(out.met == 4);
  const std::string row = "rank 2, group shards of ranks 2, 3: all_reduce #0 of 3 float32: ";
  CHECK_THAT(out.errors[2], StartsWith(row + "timed out after "));
  for (const size_t r : {0, 1, 2})
    CHECK_THAT(out.errors[r],
               Contains(row + "timed out after ") && Contains(" s (rank 3 does not answer)"));
  for (const size_t r : {0, 1}) {
    CHECK_THAT(out.errors[r],
               StartsWith(str("rank ", r, ": barrier #3: ")) && Contains("rank 2 gave up: " + row));
  }
}

TEST_CASE("ranks that wait in different calls over NCCL are told both", "[core][cpu][cuda]") {
  const int32_t first = GENERATE(0, 1);  // to its deadline
  Outcome out;
  run_nccl(out,
           3,
           {},
           {.deadline = kDeadline},
           [&](Collective& ranks, Collective& nccl, Collective& shards) {
             ranks.set_step(4);
             nccl.set_step(4);
             std::vector<float> values(3);
             if (nccl.rank() == 2) return ranks.barrier();
             if (nccl.rank() != first) std::this_thread::sleep_for(kDeadline / 3);
             try {
               nccl.rank() == 0 ? nccl.broadcast<float>(values, 1) : shards.barrier();
             } catch (const CollectiveError&) {
               ranks.barrier();
               throw;
             }
           });
  CHECK(out.seconds < 10);
  CHECK(out.met == 3);
  const std::string calls[] = {
      "rank 0 waits in broadcast #3 of 3 float32 from rank 1 over nccl in step 4",
      "rank 1 waits in barrier #0 over nccl in group shards of ranks 0, 1 in step 4",
      "rank 2 waits in barrier #3 over threads in step 4"};
  for (const size_t r : {0, 1}) {
    CHECK_THAT(out.errors[r],
               Contains(" s (" + (first == 0 ? calls[1] + "; " + calls[2] : calls[0]) + ")"));
  }
}

TEST_CASE("who gives up is heard at once in waits over NCCL", "[core][cpu][cuda]") {
  const bool over_nccl = GENERATE(false, true);
  Outcome out;
  run_nccl(out, 3, {}, {.deadline = kLong}, [&](Collective& ranks, Collective& nccl, Collective&) {
    if (nccl.rank() == 1) return (over_nccl ? nccl : ranks).abort("no memory");
    nccl.barrier();
  });
  CHECK(out.seconds < 20);
  CHECK(out.met == (over_nccl ? 3 : 0));
  CHECK(out.errors[1].empty());
  for (const size_t r : {0, 2}) {
    CHECK_THAT(
        out.errors[r],
        StartsWith(str("rank ", r, ": barrier #3: ")) && Contains("rank 1 gave up: no memory"));
  }
}

TEST_CASE("a group over NCCL that does not come together leaves the next one alone",
          "[core][cpu][cuda]") {
  std::vector<std::string> first(3);
  CHECK(run_ranks(3, [&](Collective& ranks) {
          try {
            join_nccl(ranks, {.deadline = kDeadline / 2}, 2);
          } catch (const std::exception& error) {
            first[static_cast<size_t>(ranks.rank())] = error.what();
          }
          ranks.barrier();
          const auto nccl = join_nccl(ranks, {.deadline = kLong});
          // Long enough for the others to hear what they were told.
          if (ranks.rank() == 2) std::this_thread::sleep_for(milliseconds(200));
          nccl->barrier();
        }) == std::vector<std::string>(3));
  for (const size_t r : {0, 1}) {
    CHECK_THAT(first[r],
               StartsWith(str("rank ", r, ": join #0: ")) &&
                   Contains("rank 2 waits in barrier #2 over threads"));
  }
  CHECK(first[2] == "no GPU here");
}

TEST_CASE("with debugging, errors over NCCL tell the calls that led there", "[core][cpu][cuda]") {
  Outcome out;
  run_nccl(out,
           2,
           {1},
           {.deadline = kDeadline, .debug = true},
           [](Collective&, Collective& nccl, Collective& shards) {
             nccl.set_step(2);
             shards.barrier();
           });
  CHECK_THAT(out.errors[0],
             Contains("(rank 1 does not answer); the last calls of rank 0: nccl split #0 of 3 "
                      "int64, nccl all_gather_bytes #1, nccl all_gather_bytes #2, barrier #2, nccl "
                      "shards: barrier #0 in step 2"));
}

}  // namespace praetor
