#include "tests/reward/parts.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::judged;
using testing::make;
using testing::response;

TEST_CASE("required words must be there and forbidden ones must not", "[reward][cpu]") {
  const auto judge = make("keywords", "{required: [dog, red ball], forbidden: [cat]}");
  CHECK(judged(*judge, response("The dog has a red ball.")).score == 1.0);
  CHECK(judged(*judge, response("The dog has a red ball.")).reason == "all as wanted");
  const Verdict wrong = judged(*judge, response("A dog and a cat."));
  CHECK(wrong.score == 0.0);
  CHECK(wrong.passed == false);
  CHECK(wrong.reason == "missing: red ball; unwanted: cat");
  CHECK(judged(*judge, response("")).reason == "missing: dog, red ball");
}

TEST_CASE("each gives the fraction of the words that are as wanted", "[reward][cpu]") {
  const auto judge = make("keywords", "{required: [a, b, c], forbidden: [z], each: true}");
  CHECK(judged(*judge, response("a b c")).score == 1.0);
  CHECK(judged(*judge, response("a c")).score == 0.75);
  CHECK(judged(*judge, response("z")).score == 0.0);
  CHECK(judged(*judge, response("a b z")).score == 0.5);
  CHECK(judged(*judge, response("a c")).passed == false);
}

TEST_CASE("a whole word has no letter, digit or underscore of any script beside it",
          "[reward][cpu]") {
  const auto judge = make("keywords", "{required: [cat]}");
  for (const char* text : {"cat",
                           "(cat)",
                           "the cat's",
                           "cat-like",
                           "cat.",
                           "\xe2\x80\x9c"
                           "cat\xe2\x80\x9d"}) {
    INFO(text);
    CHECK(judged(*judge, response(text)).passed == true);
  }
  for (const char* text : {"cats",
                           "concat",
                           "cat2",
                           "cat_",
                           "cat\xc3\xa9",
                           "\xd0\xb6"
                           "cat",
                           "cat\xcc\x81"}) {
    INFO(text);
    CHECK(judged(*judge, response(text)).passed == false);
  }
  CHECK(judged(*make("keywords", "{required: [cat], whole_words: false}"), response("concat"))
            .passed == true);
}

TEST_CASE("case is folded in every script, unless it counts", "[reward][cpu]") {
  const std::string upper =
      "\xc3\x89"
      "COLE";  // ÉCOLE
  const std::string lower =
      "required: ['\xc3\xa9"
      "cole']";  // école
  CHECK(judged(*make("keywords", "{" + lower + "}"), response(upper)).passed == true);
  CHECK(judged(*make("keywords", "{" + lower + ", ignore_case: false}"), response(upper)).passed ==
        false);
  CHECK(judged(*make("keywords", "{required: ['\xd0\xb4\xd0\xb0']}"), response("\xd0\x94\xd0\x90!"))
            .passed == true);  // да, ДА
  // Composed and decomposed accents are different texts.
  CHECK(judged(*make("keywords", "{" + lower + "}"),
               response("e\xcc\x81"
                        "cole"))
            .passed == false);
}

TEST_CASE("signs in a keyword stand for themselves", "[reward][cpu]") {
  CHECK(
      judged(*make("keywords", "{required: ['c++ (2x)']}"), response("I like c++ (2x).")).passed ==
      true);
  CHECK(judged(*make("keywords", "{required: ['a.c']}"), response("abc")).passed == false);
  CHECK(judged(*make("keywords", "{forbidden: ['$5']}"), response("it is $5 now")).passed == false);
}

}  // namespace praetor
