#include "core/data/text_template.h"

#include <string>

#include "tests/support/catch.h"

namespace praetor {

namespace {

TextTemplate parsed(const std::string& text) {
  const auto document = YamlDocument::parse("{}", "t.yaml", {"text=" + text});
  YamlReader in = document->root();
  TextTemplate out = TextTemplate::from_yaml(in, "text", {"prompt", "a", "b"});
  document->throw_if_errors();
  return out;
}

}  // namespace

TEST_CASE("names in braces are filled in, and nothing else is", "[core][cpu][data]") {
  CHECK(parsed("'{prompt}: {a}, {b}!'").fill({{"prompt", "P"}, {"a", "1"}, {"b", "2"}}) ==
        "P: 1, 2!");
  CHECK(parsed("'{a}{a}'").fill({{"a", "x"}}) == "xx");
  // JSON in a template stands for itself.
  CHECK(parsed("'{\"a\": {}, {A}, {a }, {'").fill({}) == "{\"a\": {}, {A}, {a }, {");
  CHECK(parsed("'{a}'").holds("a"));
  CHECK_FALSE(parsed("'{a}'").holds("b"));
  CHECK_FALSE(parsed("'a'").holds("a"));
}

TEST_CASE("what is filled in cannot name anything", "[core][cpu][data]") {
  CHECK(parsed("'{a}|{b}'").fill({{"a", "{b}"}, {"b", "{a} {"}}) == "{b}|{a} {");
}

TEST_CASE("an unknown name in braces is an error", "[core][cpu][data]") {
  CHECK_THROWS_WITH(parsed("'{c}'"),
                    Catch::EndsWith("text: there is no {c}; known here: {prompt}, "
                                    "{a}, {b}"));
}

}  // namespace praetor
