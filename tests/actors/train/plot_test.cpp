#include "actors/train/plot.h"

#include <cmath>

#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("a rising series is drawn from the lower left to the upper right", "[actors][cpu]") {
  const std::string picture = plot("reward", {0, 1, 2, 3}, 1, 4, 4, 4);
  CHECK(picture ==
        "  reward\n"
        "    3.000 |   *\n"
        "          |  * \n"
        "          | *  \n"
        "    0.000 |*   \n"
        "          +----\n"
        "           1  4\n");
}

TEST_CASE("values that are not numbers leave a gap and too few give no picture", "[actors][cpu]") {
  CHECK(plot("x", {1.0}, 0, 0).empty());
  CHECK(plot("x", {NAN, 1.0}, 0, 1).empty());
  CHECK(plot("x", {1.0, NAN, 1.0}, 0, 2, 3, 2) ==
        "  x\n"
        "    1.000 |   \n"
        "    1.000 |* *\n"
        "          +---\n"
        "           0 2\n");
}

}  // namespace praetor
