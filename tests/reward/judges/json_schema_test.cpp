#include "reward/judges/json_schema.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "tests/support/catch.h"

namespace praetor {

using nlohmann::json;

namespace {

std::string violation(const std::string& schema, const std::string& value) {
  return JsonSchema(json::parse(schema)).violation(json::parse(value), Deadline::never());
}

std::string refusal(const std::string& schema) {
  try {
    JsonSchema{json::parse(schema)};
  } catch (const DataError& failure) {
    return failure.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("every keyword has values that satisfy it and values that do not", "[reward][cpu]") {
  struct Case {
    const char* schema;
    std::vector<const char*> good;
    std::vector<std::pair<const char*, const char*>> bad;
  };
  const std::vector<Case> cases = {
      {R"({})", {"1", "null", "[]"}, {}},
      {R"(true)", {"1"}, {}},
      {R"(false)", {}, {{"1", "/: is not allowed"}}},
      {R"({"type": "integer"})",
       {"1", "-3", "2.0"},
       {{"2.5", "/: 2.5 is not of type integer"}, {"\"1\"", "/: \"1\" is not of type integer"}}},
      {R"({"type": "number"})", {"1", "2.5"}, {{"true", "/: true is not of type number"}}},
      {R"({"type": ["string", "null"]})",
       {"\"\"", "null"},
       {{"[]", "/: the array is not of type string or null"}}},
      {R"({"type": "boolean"})", {"true"}, {{"0", "/: 0 is not of type boolean"}}},
      {R"({"type": "object"})", {"{}"}, {{"[1]", "/: the array is not of type object"}}},
      {R"({"enum": [1, "a", null, [2]]})",
       {"1", "1.0", "\"a\"", "null", "[2]"},
       {{"2", "/: 2 is none of the values allowed"},
        {"true", "/: true is none of the values allowed"}}},
      {R"({"const": {"a": 1}})",
       {R"({"a": 1})"},
       {{R"({"a": 2})", "/: the object is none of the values allowed"}}},
      {R"({"properties": {"a": {"type": "string"}}})",
       {"{}", R"({"a": "x", "b": 1})", "3"},
       {{R"({"a": 1})", "/a: 1 is not of type string"}}},
      {R"({"required": ["a", "b"]})",
       {R"({"a": 1, "b": null})", "3"},
       {{R"({"a": 1})", "/: \"b\" is missing"}}},
      {R"({"properties": {"a": {}}, "additionalProperties": false})",
       {"{}", R"({"a": 1})"},
       {{R"({"a": 1, "b": 2})", "/b: is not allowed"}}},
      {R"({"additionalProperties": {"type": "integer"}})",
       {R"({"a": 1})"},
       {{R"({"a": "x"})", "/a: \"x\" is not of type integer"}}},
      {R"({"items": {"items": {"type": "integer"}}})",
       {"[]", "[[1], [2, 3]]", "[4]"},
       {{R"([[1], [2, "x"]])", "/1/1: \"x\" is not of type integer"}}},
      {R"({"minItems": 1, "maxItems": 2})",
       {"[1]", "[1, 2]", "\"\""},
       {{"[]", "/: 0 items, fewer than 1"}, {"[1, 2, 3]", "/: 3 items, more than 2"}}},
      {R"({"minLength": 2, "maxLength": 3})",
       {"\"ab\"", R"("éàü")", "5"},
       {{R"("é")", "/: 1 characters, fewer than 2"}, {"\"abcd\"", "/: 4 characters, more than 3"}}},
      {R"({"pattern": "^[a-z]+$"})",
       {"\"abc\"", "5"},
       {{"\"aB\"", "/: \"aB\" does not match ^[a-z]+$"}}},
      {R"({"pattern": "b"})", {"\"abc\""}, {{"\"ac\"", "/: \"ac\" does not match b"}}},
      {R"({"minimum": 1, "maximum": 2.5})",
       {"1", "2.5", "\"x\""},
       {{"0.9", "/: 0.9 is not >= 1"}, {"3", "/: 3 is not <= 2.5"}}},
      {R"({"exclusiveMinimum": 1, "exclusiveMaximum": 2})",
       {"1.5"},
       {{"1", "/: 1 is not > 1"}, {"2", "/: 2 is not < 2"}}},
  };
  for (const Case& each : cases) {
    for (const char* value : each.good) {
      CAPTURE(each.schema, value);
      CHECK(violation(each.schema, value) == "");
    }
    for (const auto& [value, message] : each.bad) {
      CAPTURE(each.schema, value);
      CHECK(violation(each.schema, value) == message);
    }
  }
}

TEST_CASE("a schema that could not be obeyed is refused", "[reward][cpu]") {
  CHECK(refusal(R"({"items": {"oneOf": []}})") == "schema /items: unknown keyword \"oneOf\"");
  CHECK(refusal(R"({"properties": {"a": {"format": "date"}}})") ==
        "schema /properties/a: unknown keyword \"format\"");
  CHECK(refusal(R"({"type": "text"})") == "schema /: type: \"text\" is no type of JSON Schema");
  CHECK(refusal(R"({"type": 3})") == "schema /: type: 3 is not a list of texts");
  CHECK(refusal(R"({"properties": []})") == "schema /: properties: the array is not an object");
  CHECK(refusal(R"({"required": "a"})") == "schema /: required: \"a\" is not a list of texts");
  CHECK(refusal(R"({"items": 3})") == "schema /items: number, but an object is wanted");
  CHECK(refusal(R"({"minItems": -1})") == "schema /: minItems: -1 is not a whole number >= 0");
  CHECK(refusal(R"({"minimum": "1"})") == "schema /: minimum: \"1\" is not a number");
  CHECK(refusal(R"({"enum": 1})") == "schema /: enum: 1 is not a list");
  CHECK(refusal(R"({"enum": [1], "const": 1})") ==
        "schema /: enum and const together; keep one of the two");
  CHECK(refusal(R"({"pattern": "(a"})") ==
        "schema /: pattern: missing closing parenthesis at byte 2 of \"(a\"");
  CHECK(refusal(R"({"pattern": 1})") == "schema /: pattern: 1 is not a text");
  CHECK(refusal("[]") == "schema /: array, but an object is wanted");
  CHECK(refusal(R"({"title": "t", "description": "d", "$schema": "s", "default": 1})") ==
        "accepted");
  std::string deep = "{}";
  for (int i = 0; i < 70; ++i) deep = R"({"items": )" + deep + "}";
  CHECK_THAT(refusal(deep), Catch::EndsWith(": more than 64 levels"));
}

TEST_CASE("a value nested far beyond its schema is judged all the same", "[reward][cpu]") {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  CHECK(violation(R"({"type": "array"})", deep) == "");
  CHECK(violation(R"({"type": "string"})", deep) == "/: the array is not of type string");
}

TEST_CASE("the inspection of a long value ends with its time", "[reward][cpu]") {
  const JsonSchema schema(json::parse(R"({"items": {}})"));
  CHECK_THROWS_AS(
      schema.violation(json::parse("[1, 2]"), Deadline::after(std::chrono::milliseconds(0))),
      TimeoutError);
}

}  // namespace praetor
