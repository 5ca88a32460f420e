#include "tests/reward/parts.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::judged;
using testing::make;
using testing::response;

TEST_CASE("the fraction of repeated n-grams lowers the score", "[reward][cpu]") {
  // a b c | b c a | c a b | a b c: 4 of 3 words, 3 distinct.
  const auto judge = make("repetition", "{n: 3, threshold: 0.25}");
  const Verdict verdict = judged(*judge, response("a b c a b c"));
  CHECK(verdict.score == 0.75);
  CHECK(verdict.passed == true);
  CHECK(verdict.reason == "1 of 4 3-grams of words repeated, first \"a b c\"");
  CHECK(judged(*judge, response("a a a a a a")).score == 0.25);  // 4 of one kind
  CHECK(judged(*judge, response("a a a a a a")).passed == false);
  CHECK(judged(*judge, response("a b c d e f")).score == 1.0);
  CHECK(judged(*judge, response("a b c d e f")).reason == "0 of 4 3-grams of words repeated");
  CHECK(judged(*make("repetition", "{n: 3, threshold: 0}"), response("a b c a b c")).passed ==
        false);
}

TEST_CASE("a text shorter than n repeats nothing", "[reward][cpu]") {
  const auto judge = make("repetition", "{n: 3}");
  for (const char* text : {"", "a", "a a", " \n"}) {
    CAPTURE(text);
    CHECK(judged(*judge, response(text)).score == 1.0);
    CHECK(judged(*judge, response(text)).passed == true);
  }
}

TEST_CASE("words are parted by any white space, and case may count", "[reward][cpu]") {
  CHECK(judged(*make("repetition", "{n: 2}"), response("The cat\n\nthe  CAT")).score ==
        Approx(2.0 / 3));
  CHECK(judged(*make("repetition", "{n: 2, ignore_case: false}"), response("The cat\nthe CAT"))
            .score == 1.0);
}

TEST_CASE("characters are code points", "[reward][cpu]") {
  const auto judge = make("repetition", "{unit: characters, n: 2}");
  CHECK(judged(*judge, response("abab")).score == Approx(2.0 / 3));          // ab ba ab
  CHECK(judged(*judge, response("\xc3\xa9\xc3\xa9\xc3\xa9")).score == 0.5);  // ééé: éé éé
  CHECK(judged(*judge, response("\xc3\xa9")).score == 1.0);
}

TEST_CASE("a long response can run out of time", "[reward][cpu]") {
  const auto judge = make("repetition", "{unit: characters, n: 2}");
  CHECK_THROWS_AS(judge->judge(response("abc"), Deadline::after(std::chrono::milliseconds(0))),
                  TimeoutError);
}

}  // namespace praetor
