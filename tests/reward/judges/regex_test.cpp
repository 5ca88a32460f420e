#include "core/base/error.h"
#include "tests/reward/parts.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::judged;
using testing::make;
using testing::response;

TEST_CASE("a pattern passes where it is found, and inverted where it is not", "[reward][cpu]") {
  const auto found = make("regex", "{pattern: '\\bcat\\b'}");
  const Verdict yes = judged(*found, response("a cat sat"));
  CHECK(yes.score == 1.0);
  CHECK(yes.passed == true);
  CHECK(yes.reason == "found \"cat\" at byte 2");
  const Verdict no = judged(*found, response("concatenate"));
  CHECK(no.score == 0.0);
  CHECK(no.passed == false);
  CHECK(no.reason == "not found");

  const auto absent =
      make("regex", "{pattern: cat, invert: true, score_pass: 0.5, score_fail: -2}");
  CHECK(judged(*absent, response("a dog")).score == 0.5);
  CHECK(judged(*absent, response("a dog")).passed == true);
  CHECK(judged(*absent, response("a cat")).score == -2.0);
  CHECK(judged(*absent, response("a cat")).passed == false);
}

TEST_CASE("a pattern may look at the prompt or a field of the row", "[reward][cpu]") {
  Sample sample = response("no", R"({"topic": "cats", "year": 2024, "tags": ["a"], "none": null})");
  sample.prompt = "Tell me of cats";
  CHECK(judged(*make("regex", "{pattern: cats, field: prompt}"), sample).passed == true);
  CHECK(judged(*make("regex", "{pattern: '^cats$', field: metadata.topic}"), sample).passed ==
        true);
  CHECK(judged(*make("regex", "{pattern: '^2024$', field: metadata.year}"), sample).passed == true);
  CHECK(judged(*make("regex", "{pattern: cats}"), sample).passed == false);
  CHECK_THROWS_WITH(judged(*make("regex", "{pattern: a, field: metadata.tags}"), sample),
                    "metadata.tags: array, but a string or number is wanted");
}

TEST_CASE("a field that the row lacks is an error, or not applicable when told so",
          "[reward][cpu]") {
  for (const char* metadata : {"{}", R"({"topic": null})"}) {
    CHECK_THROWS_WITH(
        judged(*make("regex", "{pattern: a, field: metadata.topic}"), response("a", metadata)),
        "the row has no field metadata.topic");
    const Verdict skipped =
        judged(*make("regex", "{pattern: a, field: metadata.topic, missing: skip}"),
               response("a", metadata));
    CHECK(skipped.not_applicable);
    CHECK_FALSE(skipped.passed);
    CHECK(skipped.reason == "not applicable: the row has no field metadata.topic");
  }
  CHECK_THROWS_AS(judged(*make("regex", "{pattern: a, field: metadata.x, missing: skip}"),
                         response("a", "[1]")),
                  DataError);
  CHECK_THROWS_AS(
      judged(*make("regex", "{pattern: a, field: metadata.x, missing: skip}"), response("a", "{")),
      DataError);
}

TEST_CASE("flags stand in the pattern", "[reward][cpu]") {
  CHECK(judged(*make("regex", "{pattern: '(?i)CAT'}"), response("a cat")).passed == true);
  CHECK(judged(*make("regex", "{pattern: 'a.b'}"), response("a\nb")).passed == false);
  CHECK(judged(*make("regex", "{pattern: '(?s)a.b'}"), response("a\nb")).passed == true);
}

TEST_CASE("a pattern that explodes on a response is that sample's error", "[reward][cpu]") {
  const auto judge = make("regex", "{pattern: '^(a+)+$'}");
  CHECK_THROWS_WITH(judged(*judge, response(std::string(60, 'a') + "b")),
                    "match limit of 1000000 steps reached");
  CHECK(judged(*judge, response("aaa")).passed == true);
}

}  // namespace praetor
