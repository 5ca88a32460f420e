#include "core/base/error.h"
#include "tests/reward/parts.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::judged;
using testing::make;
using testing::response;

TEST_CASE("both edges of the window of lengths count as inside", "[reward][cpu]") {
  const auto judge = make("length", "{unit: words, min: 2, max: 3}");
  CHECK(judged(*judge, response("one")).score == 0.0);
  CHECK(judged(*judge, response("one two")).score == 1.0);
  CHECK(judged(*judge, response(" one\ttwo\n\nthree ")).score == 1.0);
  CHECK(judged(*judge, response("a b c d")).score == 0.0);
  CHECK(judged(*judge, response("one")).reason == "1 words, fewer than 2");
  CHECK(judged(*judge, response("a b c d")).reason == "4 words, more than 3");
  CHECK(judged(*judge, response("a b")).passed == true);
  CHECK(judged(*judge, response("")).passed == false);
}

TEST_CASE("characters are code points, not bytes", "[reward][cpu]") {
  const auto judge = make("length", "{unit: characters, min: 4, max: 5}");
  CHECK(judged(*judge, response("na\xc3\xafve")).passed == true);  // 5 characters, 6 bytes
  CHECK(judged(*judge, response("\xf0\x9f\x98\x80\xe2\x82\xac")).passed == false);  // 2, 7 bytes
  CHECK(judged(*judge, response("\xe6\xbc\xa2\xe5\xad\x97\xe6\xbc\xa2\xe5\xad\x97")).passed ==
        true);                                                     // 4, 12
  CHECK(judged(*judge, response("e\xcc\x81xyz")).passed == true);  // a combining mark is one: 5
  CHECK(judged(*judge, response("e\xcc\x81xyzw")).passed == false);
}

TEST_CASE("words are parted by any white space of Unicode", "[reward][cpu]") {
  const auto judge = make("length", "{unit: words, min: 3, max: 3}");
  CHECK(judged(*judge,
               response("a\xc2\xa0"
                        "b\xe3\x80\x80"
                        "c"))
            .passed == true);  // no-break, ideographic
  CHECK(judged(*judge, response("don't stop-it now")).passed == true);
  CHECK(judged(*judge,
               response("a\xe2\x80\x8b"
                        "b c"))
            .passed == false);  // zero width space is none
}

TEST_CASE("the soft edge falls in a line from 1 to 0", "[reward][cpu]") {
  const auto judge = make("length", "{unit: characters, min: 10, max: 20, soft: 4}");
  CHECK(judged(*judge, response(std::string(10, 'x'))).score == 1.0);
  CHECK(judged(*judge, response(std::string(9, 'x'))).score == 0.75);
  CHECK(judged(*judge, response(std::string(7, 'x'))).score == 0.25);
  CHECK(judged(*judge, response(std::string(6, 'x'))).score == 0.0);
  CHECK(judged(*judge, response("")).score == 0.0);
  CHECK(judged(*judge, response(std::string(22, 'x'))).score == 0.5);
  CHECK(judged(*judge, response(std::string(400, 'x'))).score == 0.0);
  // A part of the score is no pass.
  CHECK(judged(*judge, response(std::string(9, 'x'))).passed == false);
}

TEST_CASE("one open edge is enough", "[reward][cpu]") {
  CHECK(judged(*make("length", "{min: 2}"), response("a b c d e f")).passed == true);
  CHECK(judged(*make("length", "{max: 2}"), response("")).passed == true);
  CHECK(judged(*make("length", "{min: 1}"), response(" \n ")).passed == false);
}

TEST_CASE("tokens are the policy's count, and its absence is an error", "[reward][cpu]") {
  const auto judge = make("length", "{unit: tokens, max: 5}");
  Sample sample = response("some text");
  sample.response_tokens = 5;
  CHECK(judged(*judge, sample).passed == true);
  sample.response_tokens = 6;
  CHECK(judged(*judge, sample).passed == false);
  sample.response_tokens = 0;
  CHECK_THROWS_AS(judged(*judge, sample), DataError);
  CHECK(judged(*judge, response("")).passed == true);
}

}  // namespace praetor
