#include "core/base/bounded_regex.h"

#include <chrono>
#include <string>

#include "tests/support/catch.h"

namespace praetor {

using namespace std::chrono_literals;

TEST_CASE("a search finds the first match and its groups from a given byte on", "[core][cpu]") {
  const BoundedRegex regex("(a)|(\\d+)b");
  const std::string text = "xx 12b a";
  const auto first = regex.search(text, Deadline::never());
  REQUIRE(first);
  CHECK(first->begin == 3);
  CHECK(first->end == 6);
  REQUIRE(first->groups.size() == 2);
  CHECK_FALSE(first->groups[0]);
  CHECK(first->groups[1] == "12");
  const auto second = regex.search(text, first->end, Deadline::never());
  REQUIRE(second);
  CHECK(second->begin == 7);
  CHECK(second->groups[0] == "a");
  CHECK_FALSE(regex.search(text, text.size(), Deadline::never()));
}

TEST_CASE("letters, digits and case are Unicode's", "[core][cpu]") {
  CHECK(BoundedRegex("^\\w+$").search("Straße", Deadline::never()));
  CHECK(BoundedRegex("école", {.ignore_case = true}).search("ÉCOLE", Deadline::never()));
  CHECK_FALSE(BoundedRegex("école").search("ÉCOLE", Deadline::never()));
  // One character, two bytes.
  CHECK(BoundedRegex("^.$").search("é", Deadline::never()));
}

TEST_CASE("an empty text and an empty pattern are no special case", "[core][cpu]") {
  CHECK(BoundedRegex("^$").search({}, Deadline::never()));
  CHECK(BoundedRegex("").search("abc", Deadline::never())->end == 0);
  CHECK_FALSE(BoundedRegex("a").search({}, Deadline::never()));
}

TEST_CASE("a pattern that cannot be compiled is named with its place", "[core][cpu]") {
  CHECK_THROWS_WITH(BoundedRegex("(a"), "missing closing parenthesis at byte 2 of \"(a\"");
  CHECK_THROWS_AS(BoundedRegex("[z-a]"), InvalidArgument);
  CHECK_THROWS_AS(BoundedRegex("a\xff"), InvalidArgument);
  CHECK_THROWS_AS(BoundedRegex(std::string(70'000, 'a')), InvalidArgument);
  // \C would split a character.
  CHECK_THROWS_AS(BoundedRegex("\\C"), InvalidArgument);
}

TEST_CASE("text that is not UTF-8 is refused, not searched", "[core][cpu]") {
  CHECK_THROWS_AS(BoundedRegex("a").search("a\xff", Deadline::never()), DataError);
}

TEST_CASE("a search that explodes ends at its steps, the same everywhere", "[core][cpu]") {
  const std::string text(60, 'a');
  CHECK_THROWS_WITH(BoundedRegex("^(a|aa)+$").search(text + "b", Deadline::never()),
                    "match limit of 1000000 steps reached");
  CHECK_THROWS_WITH(
      BoundedRegex("^(a+)+$", {.match_limit = 100}).search(text + "b", Deadline::never()),
      "match limit of 100 steps reached");
  CHECK_THROWS_AS(BoundedRegex("^(a+)+$", {.match_limit = 1'000'000'000, .heap_limit_kib = 1})
                      .search(text + "b", Deadline::never()),
                  RegexLimitError);
}

TEST_CASE("a search without a limit of steps ends at its deadline", "[core][cpu]") {
  const BoundedRegex regex("^(a+)+$", {.match_limit = 4'000'000'000u});
  const auto begin = std::chrono::steady_clock::now();
  CHECK_THROWS_WITH(regex.search(std::string(60, 'a') + "b", Deadline::after(20ms)),
                    "timeout after 20 ms");
  CHECK(std::chrono::steady_clock::now() - begin < 2s);
  CHECK_THROWS_AS(regex.search("a", Deadline::after(0ms)), TimeoutError);
}

TEST_CASE("many starts that each stay below the limit also end at the deadline", "[core][cpu]") {
  // Half a million steps at a start, which is below the limit, and 900 starts.
  const BoundedRegex regex("a*a*a*[bc]");
  const auto begin = std::chrono::steady_clock::now();
  CHECK_THROWS_AS(regex.search(std::string(900, 'a'), Deadline::after(30ms)), TimeoutError);
  CHECK(std::chrono::steady_clock::now() - begin < 2s);
}

TEST_CASE("quoted text stands for itself", "[core][cpu]") {
  const std::string text = "a.b*[c]\\Q\\E (d)\n#$^|?+{1}-é_\t";
  const auto match =
      BoundedRegex(BoundedRegex::quote(text)).search("<" + text + ">", Deadline::never());
  REQUIRE(match);
  CHECK(match->begin == 1);
  CHECK(match->end == 1 + text.size());
  CHECK_FALSE(BoundedRegex(BoundedRegex::quote("a.c")).search("abc", Deadline::never()));
}

}  // namespace praetor
