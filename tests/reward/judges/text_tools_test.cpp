#include "reward/judges/text_tools.h"

#include "tests/support/catch.h"

namespace praetor {

using Views = std::vector<std::string_view>;

TEST_CASE("white space of Unicode is stripped from both ends", "[reward][cpu]") {
  CHECK(strip(" \n a b\t\x1f") == "a b");
  CHECK(strip("\xc2\xa0\xe3\x80\x80\xc3\xa9\xe2\x80\xa8") == "\xc3\xa9");
  CHECK(strip(" \n").empty());
  CHECK(strip("").empty());
  CHECK(strip("**a*b**", "*") == "a*b");
  CHECK(strip("***", "*").empty());
  CHECK(is_blank("\t \n"));
  CHECK_FALSE(is_blank(" . "));
}

TEST_CASE("case is that of every script", "[reward][cpu]") {
  CHECK(lower_case("ABC \xc3\x89 \xd0\x94") == "abc \xc3\xa9 \xd0\xb4");
  CHECK(is_upper_case("\xc3\x89T\xc3\x89 1!"));
  CHECK_FALSE(is_upper_case("AbC"));
  CHECK_FALSE(is_upper_case("123"));
  CHECK_FALSE(is_upper_case("A\xc7\x85"));  // a title-case letter
  CHECK(is_lower_case("\xd0\xb4\xd0\xb0, 1"));
  CHECK_FALSE(is_lower_case("aB"));
  CHECK_FALSE(is_lower_case(""));
}

TEST_CASE("texts are parted at blanks, marks and patterns", "[reward][cpu]") {
  CHECK(words_of(" a\n b\xc2\xa0"
                 "c ") == Views{"a", "b", "c"});
  CHECK(words_of(" ").empty());
  CHECK(split("a--b--", "--") == Views{"a", "b", ""});
  CHECK(split("", "--") == Views{""});
  const BoundedRegex comma(" ?, ?");
  CHECK(split("a , b,c", comma, Deadline::never()) == Views{"a", "b", "c"});
}

TEST_CASE("matches are found side by side, empty ones too", "[reward][cpu]") {
  CHECK(find_all("aaaaa", BoundedRegex("aa"), Deadline::never()) == Views{"aa", "aa"});
  CHECK(find_all("a\xc3\xa9", BoundedRegex("x*"), Deadline::never()) == Views{"", "", ""});
  CHECK(find_all("", BoundedRegex("x*"), Deadline::never()) == Views{""});
  CHECK(find_all("abab", BoundedRegex("a\\Kb"), Deadline::never()) == Views{"b", "b"});
}

}  // namespace praetor
