#include "learners/statistics.h"

#include <cmath>

#include "tests/support/catch.h"

namespace praetor {

using Kind = Statistic::Kind;

TEST_CASE("means weigh their parts, and extremes and sums are what they say", "[learners][cpu]") {
  Statistics statistics;
  statistics.add({{"mean", 2, 1},
                  {"max", 3, 1, Kind::kMax},
                  {"min", 3, 1, Kind::kMin},
                  {"sum", 3, 1, Kind::kSum}});
  statistics.add({{"mean", 4, 3},
                  {"max", -1, 1, Kind::kMax},
                  {"min", -1, 1, Kind::kMin},
                  {"sum", 2, 1, Kind::kSum}});
  CHECK(statistics.value("mean") == 1.5);
  CHECK(statistics.value("max") == 3);
  CHECK(statistics.value("min") == -1);
  CHECK(statistics.value("sum") == 5);
  CHECK_FALSE(statistics.value("none").has_value());
  Statistics other;
  other.add({"exp", std::log(9.0), 2, Kind::kExpMean});
  other.merge(statistics);
  CHECK(*other.value("exp") == Approx(3));
  CHECK(other.metrics().front().first == "exp");
  CHECK(other.metrics().size() == 5);
}

TEST_CASE("a mean of nothing is not reported", "[learners][cpu]") {
  Statistics statistics;
  statistics.add({"mean", 0, 0});
  CHECK(statistics.metrics().empty());
}

}  // namespace praetor
