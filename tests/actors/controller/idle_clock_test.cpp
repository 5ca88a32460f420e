#include "actors/controller/idle_clock.h"

#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("waiting is summed over workers, and read while it lasts", "[actors][cpu]") {
  using std::chrono::milliseconds;
  constexpr auto kGenerate = LeaseKind::kGenerate;
  const IdleClock::Clock::time_point start{};
  IdleClock clock;
  clock.begin(kGenerate, "a", start);
  clock.begin(kGenerate, "b", start + milliseconds(500));
  clock.end(kGenerate, "a", start + milliseconds(1000));
  clock.end(kGenerate, "c", start + milliseconds(1000));  // it never began
  CHECK(clock.take(kGenerate, start + milliseconds(2000)) == Approx(1.0 + 1.5));
  clock.end(kGenerate, "b", start + milliseconds(2250));
  CHECK(clock.take(kGenerate, start + milliseconds(9000)) == Approx(0.25));
  CHECK(clock.take(LeaseKind::kScore, start + milliseconds(9000)) == 0);
}

}  // namespace praetor
