#include "rollout/grammar/pattern.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/error.h"
#include "rollout/grammar/dfa.h"
#include "tests/rollout/grammar/naive_matcher.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor::grammar {
namespace {

using praetor::testing::NaiveMatcher;

bool accepts(const ExpressionPtr& expression, std::string_view text) {
  const Nfa nfa(*expression);
  Dfa dfa(nfa);
  int32_t state = dfa.start();
  for (const char byte : text) {
    if (state == Dfa::kDead) return false;
    state = dfa.step(state, static_cast<uint8_t>(byte));
  }
  return state != Dfa::kDead && dfa.accepting(state);
}

bool matches(std::string_view pattern, std::string_view text) {
  return accepts(parse_pattern(pattern, Extent::kWhole), text);
}

bool found(std::string_view pattern, std::string_view text) {
  return accepts(parse_pattern(pattern, Extent::kPart), text);
}

std::string refusal(std::string_view pattern) {
  try {
    parse_pattern(pattern, Extent::kWhole);
  } catch (const InvalidArgument& failure) {
    return failure.what();
  }
  return "accepted";
}

bool anchored(const std::string& pattern) {
  return pattern.starts_with("^") || pattern.ends_with("$");
}

}  // namespace

TEST_CASE("patterns match what Python's re.fullmatch takes", "[rollout][cpu]") {
  std::ifstream file(praetor::testing::golden("patterns.json"));
  const auto golden = nlohmann::json::parse(file);
  int matched = 0;
  for (const auto& c : golden.at("cases")) {
    const auto pattern = c.at("pattern").get<std::string>();
    CAPTURE(pattern);
    for (const bool wanted : {true, false}) {
      for (const auto& text : c.at(wanted ? "matches" : "others")) {
        CAPTURE(text.dump());
        CHECK(matches(pattern, text.get<std::string>()) == wanted);
        // The tests' own matcher, which other tests rely on.
        if (!anchored(pattern) || pattern.ends_with("\\$"))
          CHECK(NaiveMatcher::matches(pattern, text.get<std::string>()) == wanted);
        matched += wanted ? 1 : 0;
      }
    }
  }
  CHECK(golden.at("cases").size() > 180);
  CHECK(matched > 600);
}

TEST_CASE("only well-formed UTF-8 is read as characters", "[rollout][cpu]") {
  CHECK(matches(".", "\xC3\xA9"));
  for (const char* broken :
       {"\xC3", "\xA9", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xFF"})
    CHECK_FALSE(matches("[\\s\\S]", broken));
  // The ends of every length, and the edges of the surrogates.
  for (const char32_t code :
       {0x0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF}) {
    std::string text;
    unicode::append(text, code);
    CHECK(matches("[\\s\\S]", text));
    CHECK(accepts(character({code, code}), text));
    CHECK_FALSE(accepts(character(CodePoints(code, code).complement()), text));
  }
}

TEST_CASE("every character of a range is matched, and no other", "[rollout][cpu]") {
  const Nfa nfa(*character({0x7A, 0x10123}));
  Dfa dfa(nfa);
  for (char32_t code = 0; code < 0x10400; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string text;
    unicode::append(text, code);
    int32_t state = dfa.start();
    for (const char byte : text)
      state = state == Dfa::kDead ? state : dfa.step(state, static_cast<uint8_t>(byte));
    const bool accepted = state != Dfa::kDead && dfa.accepting(state);
    if (accepted != (code >= 0x7A && code <= 0x10123)) {
      CAPTURE(static_cast<uint32_t>(code));
      CHECK(accepted != accepted);
    }
  }
  CHECK(dfa.size() > 5);
}

TEST_CASE("a search needs the pattern in a part of the text", "[rollout][cpu]") {
  CHECK(found("b", "abc"));
  CHECK_FALSE(found("b", "ac"));
  CHECK_FALSE(found("^b", "abc"));
  CHECK(found("^a", "abc"));
  CHECK(found("c$", "abc"));
  CHECK_FALSE(found("^b$", "abc"));
  CHECK(found("^a$|b", "xbx"));
  CHECK(found("^a$|b", "a"));
  CHECK_FALSE(found("^a$|b", "ax"));
  CHECK(found("", "anything"));
}

TEST_CASE("what patterns cannot hold is refused with its offset", "[rollout][cpu]") {
  using Catch::Matchers::StartsWith;
  CHECK_THAT(refusal("ab(?=c)"), StartsWith("offset 2: only the groups"));
  CHECK_THAT(refusal("(?i)a"), StartsWith("offset 0: only the groups"));
  CHECK_THAT(refusal("(a)\\1"), StartsWith("offset 3: back-references"));
  CHECK_THAT(refusal("a\\bc"), StartsWith("offset 1: \\b is not supported"));
  CHECK_THAT(refusal("a^b"), StartsWith("offset 1: \"^\" is supported at the ends"));
  CHECK_THAT(refusal("(a$)"), StartsWith("offset 2: \"$\""));
  CHECK_THAT(refusal("a++"), StartsWith("offset 2: possessive"));
  CHECK_THAT(refusal("a**"), StartsWith("offset 2: a quantifier behind a quantifier"));
  CHECK_THAT(refusal("*a"), StartsWith("offset 0: nothing stands before"));
  CHECK_THAT(refusal("a{x}"), StartsWith("offset 1: \"{\" begins no quantifier"));
  CHECK_THAT(refusal("a{3,2}"),
             StartsWith("offset 1: the least number") || StartsWith("offset 6: the least number"));
  CHECK_THAT(refusal("a{1000000}"), StartsWith("offset 2: more than"));
  CHECK_THAT(refusal("(a"), StartsWith("offset 0: the group does not end"));
  CHECK_THAT(refusal("a)"), StartsWith("offset 1: \")\" closes no group"));
  CHECK_THAT(refusal("x[a"), StartsWith("offset 1: the class does not end"));
  CHECK_THAT(refusal("[b-a]"), StartsWith("offset 1: the range begins behind"));
  CHECK_THAT(refusal("[a-\\d]"), StartsWith("offset 1: a range ends in a set"));
  CHECK_THAT(refusal("[^\\s\\S]"), StartsWith("offset 0: the class holds no character"));
  CHECK_THAT(refusal("\\ud800"), StartsWith("offset 0: no character"));
  CHECK_THAT(refusal("\\x4"), StartsWith("offset 0: 2 hexadecimal digits"));
  CHECK_THAT(refusal("a\\"), StartsWith("offset 1: a backslash at the end"));
  CHECK_THAT(refusal("a\xff"), StartsWith("offset 1: the pattern is not UTF-8"));
  CHECK_THAT(refusal(std::string(300, '(')), StartsWith("offset 201: groups are nested"));
}

TEST_CASE("an automaton that grows too large is refused", "[rollout][cpu]") {
  CHECK_THROWS_WITH(Nfa(*parse_pattern("((a{1000}){1000}){1000}", Extent::kWhole)),
                    Catch::Contains("more than 400000 states"));
}

}  // namespace praetor::grammar
