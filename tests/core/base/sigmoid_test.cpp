#include "core/base/sigmoid.h"

#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("the sigmoid has its worked values and neither overflows nor favours", "[core][cpu]") {
  CHECK(sigmoid(1.0) == Approx(0.731059).margin(1e-6));
  CHECK(sigmoid(0.8) == Approx(0.689974).margin(1e-6));
  CHECK(sigmoid(-0.8) == Approx(1 - 0.689974).margin(1e-6));
  CHECK(sigmoid(0.0) == 0.5);
  CHECK(sigmoid(2000.0) == 1.0);
  CHECK(sigmoid(-2000.0) == 0.0);
}

}  // namespace praetor
