// Operations that are started, those between two ranks, and what errors tell.
#include <chrono>
#include <thread>

#include "core/base/error.h"
#include "core/collective/collective.h"
#include "tests/core/collective/transcript.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"

namespace praetor {

using std::chrono::milliseconds;
using testing::run_ranks;
using testing::uneven;

namespace {

std::vector<std::string> none(int32_t world) {
  return std::vector<std::string>(static_cast<size_t>(world));
}

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("what is started has the results of what is waited for", "[core][cpu]") {
  for (const int32_t world : {1, 2, 3, 4}) {
    const auto w = static_cast<size_t>(world);
    std::vector<int> equal(w);
    CHECK(run_ranks(world, [&](Collective& ranks) {
            const size_t n = 5000;
            const auto whole = uneven<float>(ranks.rank(), n * w);
            const auto own = uneven<float>(ranks.rank(), n);
            std::vector<float> sum(n), wanted_sum(n), all(n * w), wanted_all(n * w), late(1);
            ranks.reduce_scatter<float>(whole, wanted_sum);
            ranks.all_gather<float>(own, wanted_all);
            const auto first = ranks.start_reduce_scatter<float>(whole, sum);
            const auto second = ranks.start_all_gather<float>(own, all);
            late[0] = 1;
            ranks.all_reduce<float>(late);  // behind both
            const bool done = sum == wanted_sum && all == wanted_all;
            second->wait();  // in any order
            first->wait();
            equal[static_cast<size_t>(ranks.rank())] = done && late[0] == static_cast<float>(world);
          }) == none(world));
    CHECK(equal == std::vector<int>(w, 1));
  }
}

TEST_CASE("a rank computes while what it started waits for another", "[core][cpu]") {
  std::vector<int> before(2), after(2);
  CHECK(run_ranks(2, [&](Collective& ranks) {
          const auto r = static_cast<size_t>(ranks.rank());
          const std::vector<int64_t> own{ranks.rank() + 5};
          std::vector<int64_t> all(2, -1);
          if (r == 1) std::this_thread::sleep_for(milliseconds(100));
          const auto start = std::chrono::steady_clock::now();
          const auto pending = ranks.start_all_gather<int64_t>(own, all);
          // Rank 0 comes back from it although rank 1 has not begun.
          before[r] = std::chrono::steady_clock::now() - start < milliseconds(80);
          pending->wait();
          after[r] = all == std::vector<int64_t>{5, 6};
        }) == none(2));
  CHECK(before == std::vector<int>{1, 1});
  CHECK(after == std::vector<int>{1, 1});
}

TEST_CASE("what is started fails where it is waited for, and so does all behind it",
          "[core][cpu]") {
  std::vector<std::string> behind(3);
  const auto errors = run_ranks(3,
                                [&](Collective& ranks) {
                                  if (ranks.rank() == 2) return;
                                  ranks.set_step(41);
                                  std::vector<float> own(4), all(12), other(12);
                                  const auto one = ranks.start_all_gather<float>(own, all);
                                  const auto two = ranks.start_all_gather<float>(own, other);
                                  try {
                                    two->wait();
                                  } catch (const CollectiveError& error) {
                                    behind[static_cast<size_t>(ranks.rank())] = error.what();
                                  }
                                  one->wait();
                                },
                                {.deadline = milliseconds(100)});
  CHECK(errors[2].empty());
  for (const size_t r : {0, 1}) {
    CHECK_THAT(errors[r], Catch::Contains("all_gather #0 of 12 float32 in step 41"));
    CHECK_THAT(errors[r], Catch::Contains("rank 2 did not come") || Catch::Contains("gave up"));
    CHECK_THAT(behind[r], Catch::Contains("all_gather #1") && Catch::Contains("failed before"));
  }
}

TEST_CASE("giving up ends what was started, and the others are told why", "[core][cpu]") {
  std::vector<std::string> own(2);
  std::vector<std::string> errors;
  const double waited = seconds_of([&] {
    errors = run_ranks(2, [&](Collective& ranks) {
      std::vector<float> part(2), all(4);
      if (ranks.rank() == 1) {
        std::this_thread::sleep_for(milliseconds(100));
        ranks.barrier();
        return;
      }
      const auto pending = ranks.start_all_gather<float>(part, all);
      ranks.abort("no memory");
      try {
        pending->wait();
      } catch (const CollectiveError& error) {
        own[0] = error.what();
      }
    });
  });
  CHECK(waited < 10);
  CHECK_THAT(own[0], Catch::Contains("all_gather #0") && Catch::Contains("no memory"));
  // Either is true of rank 0: it had called all_gather, and then it gave up.
  CHECK_THAT(errors[1], Catch::Contains("all_gather #0") || Catch::Contains("no memory"));
}

TEST_CASE("bfloat16 is summed in float32 and rounded once, integers wrap", "[core][cpu]") {
  std::vector<std::vector<c10::BFloat16>> small(3), part(3);
  std::vector<int32_t> wrapped(3);
  CHECK(run_ranks(3, [&](Collective& ranks) {
          const auto r = static_cast<size_t>(ranks.rank());
          // 256 + 1 + 1 is 258; rounded in between, 256 + 1 would be 256 again.
          const c10::BFloat16 own = r == 0 ? 256 : 1;
          small[r].assign(3, own);
          ranks.all_reduce<c10::BFloat16>(small[r]);
          part[r].resize(5000);
          ranks.reduce_scatter<c10::BFloat16>(std::vector<c10::BFloat16>(15000, own), part[r]);
          std::vector<int32_t> one{r == 0 ? std::numeric_limits<int32_t>::max() : 1};
          ranks.all_reduce<int32_t>(one);
          wrapped[r] = one[0];
        }) == none(3));
  for (size_t r = 0; r < 3; ++r) {
    CHECK(small[r] == std::vector<c10::BFloat16>(3, 258));
    CHECK(part[r] == std::vector<c10::BFloat16>(5000, 258));
    CHECK(wrapped[r] == std::numeric_limits<int32_t>::min() + 1);
  }
}

TEST_CASE("each rank's parts reach the ranks they are for", "[core][cpu]") {
  for (const int32_t world : {1, 2, 3, 4}) {
    std::vector<std::vector<int64_t>> got(static_cast<size_t>(world));
    CHECK(run_ranks(world, [&](Collective& ranks) {
            std::vector<int64_t> send;
            for (int64_t to = 0; to < world; ++to) {
              for (int64_t i = 0; i < 2; ++i) send.push_back(100 * ranks.rank() + 10 * to + i);
            }
            auto& mine = got[static_cast<size_t>(ranks.rank())];
            mine.resize(send.size());
            ranks.all_to_all<int64_t>(send, mine);
          }) == none(world));
    for (int64_t r = 0; r < world; ++r) {
      for (int64_t from = 0; from < world; ++from) {
        CHECK(got[size_t(r)][size_t(2 * from)] == 100 * from + 10 * r);
        CHECK(got[size_t(r)][size_t(2 * from + 1)] == 100 * from + 10 * r + 1);
      }
    }
  }
  const auto errors = run_ranks(2, [](Collective& ranks) {
    std::vector<float> three(3), four(4);
    ranks.all_to_all<float>(three, four);
  });
  CHECK_THAT(errors[0], Catch::Contains("all_to_all") && Catch::Contains("come out even"));
}

TEST_CASE("two ranks pass elements while the third does not look", "[core][cpu]") {
  std::vector<float> got(2);
  CHECK(run_ranks(3, [&](Collective& ranks) {
          if (ranks.rank() == 0) {
            ranks.send<float>(std::vector<float>{1, 2}, 2);
            ranks.send<float>(std::vector<float>{3}, 2);
          }
          if (ranks.rank() == 2) {
            ranks.receive<float>(got, 0);
            ranks.receive<float>(std::span(got).first(1), 0);
          }
          ranks.barrier();
        }) == none(3));
  CHECK(got == std::vector<float>{3, 2});
}

TEST_CASE("errors between two ranks name both", "[core][cpu]") {
  const auto late = run_ranks(2,
                              [](Collective& ranks) {
                                std::vector<float> x(3);
                                if (ranks.rank() == 0) ranks.receive<float>(x, 1);
                                if (ranks.rank() == 1)
                                  std::this_thread::sleep_for(milliseconds(300));
                              },
                              {.deadline = milliseconds(50)});
  CHECK_THAT(late[0],
             Catch::Contains("send/receive #0 of 3 float32 from rank 1 to rank 0 timed out") &&
                 Catch::Contains("rank 1 did not come"));
  const auto other = run_ranks(2, [](Collective& ranks) {
    std::vector<float> x(3);
    if (ranks.rank() == 0) ranks.receive<float>(x, 1);
    if (ranks.rank() == 1) ranks.all_reduce<float>(x);
  });
  CHECK_THAT(other[0],
             Catch::Contains("meets another call: rank 1 calls all_reduce #0 of 3 float32"));
  const auto self = run_ranks(1, [](Collective& ranks) {
    std::vector<float> x(3);
    ranks.send<float>(x, 0);
  });
  CHECK_THAT(self[0], Catch::Contains("send to rank 0 of a world of 1"));
  const auto outside = run_ranks(2, [](Collective& ranks) {
    std::vector<float> x(3);
    ranks.receive<float>(x, 2);
  });
  CHECK_THAT(outside[1], Catch::Contains("receive from rank 2 of a world of 2"));
}

TEST_CASE("with debugging, errors tell the calls that led there", "[core][cpu]") {
  const auto calls = [](Collective& ranks) {
    std::vector<float> part(4), all(8), other(4096);
    ranks.set_step(7);
    ranks.broadcast<float>(part, 1);
    ranks.all_gather<float>(part, all);
    if (ranks.rank() == 0) ranks.all_gather<float>(part, all);
    if (ranks.rank() == 1) ranks.all_reduce<float>(other);
  };
  const auto errors = run_ranks(2, calls, {.deadline = std::chrono::seconds(60), .debug = true});
  const std::string both = errors[0] + errors[1];
  CHECK_THAT(both,
             Catch::Contains("all_gather #2 of 8 float32 in step 7 meets another call: rank 1 "
                             "calls all_reduce #2 of 4096 float32 in step 7") ||
                 Catch::Contains("all_reduce #2 of 4096 float32 in step 7 meets another call: rank "
                                 "0 calls all_gather #2 of 8 float32 in step 7"));
  CHECK_THAT(errors[0],
             Catch::Contains("the last calls of rank 0: broadcast #0 of 4 float32 from rank 1 in "
                             "step 7, all_gather #1 of 8 float32 in step 7, all_gather #2"));
  CHECK_THAT(errors[1], Catch::Contains("the last calls of rank 1: broadcast #0 of 4 float32"));
  for (const std::string& error : run_ranks(2, calls))
    CHECK(error.find("the last calls") == std::string::npos);
}

}  // namespace praetor
