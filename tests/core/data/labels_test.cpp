#include "core/data/labels.h"

#include <cmath>

#include "core/base/error.h"
#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("labels are the row's numbers, and missing ones are NaN", "[core][cpu]") {
  const auto labels = row_labels(R"({"helpfulness": 3, "verbosity": null, "other": "x"})",
                                 {"verbosity", "helpfulness", "coherence"});
  REQUIRE(labels.size() == 3);
  CHECK(std::isnan(labels[0]));
  CHECK(labels[1] == 3);
  CHECK(std::isnan(labels[2]));
  CHECK(row_labels("{}", {}).empty());
}

TEST_CASE("a label that is no number is named", "[core][cpu]") {
  CHECK_THROWS_WITH(row_labels(R"({"helpfulness": "3"})", {"helpfulness"}),
                    Catch::Contains("\"helpfulness\" is string; a number is wanted"));
  CHECK_THROWS_AS(row_labels(R"({"helpfulness": [3]})", {"helpfulness"}), DataError);
}

}  // namespace praetor
