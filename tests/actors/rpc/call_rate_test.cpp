#include "actors/rpc/call_rate.h"

#include "core/base/str.h"
#include "tests/support/catch.h"

namespace praetor::rpc {

TEST_CASE("a caller may call so often at once, and so often in each second", "[actors][rpc][cpu]") {
  CallRate rate(10, 4);
  const CallRate::Clock::time_point start{};
  const auto taken = [&](const char* caller, double seconds) {
    const auto now = start + std::chrono::duration_cast<CallRate::Clock::duration>(
                                 std::chrono::duration<double>(seconds));
    int count = 0;
    while (count < 100 && rate.take(caller, now)) ++count;
    return count;
  };
  CHECK(taken("a", 0) == 4);
  CHECK(taken("a", 0.05) == 0);
  CHECK(taken("b", 0.05) == 4);  // each has a count of its own
  CHECK(taken("a", 0.2) == 2);
  CHECK(taken("a", 100) == 4);  // no more than the burst is saved up
}

TEST_CASE("callers without number are not remembered without end", "[actors][rpc][cpu]") {
  CallRate rate(1000, 2);
  CallRate::Clock::time_point now{};
  CHECK(rate.take("busy", now));
  for (int i = 0; i < 50'000; ++i) {
    now += std::chrono::microseconds(100);
    CHECK(rate.take(str("caller ", i), now));
  }
  CHECK(rate.take("busy", now));
  CHECK(rate.take("busy", now));
  CHECK_FALSE(rate.take("busy", now));
}

}  // namespace praetor::rpc
