#include "rollout/grammar/json_schema.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/error.h"
#include "core/base/random.h"
#include "rollout/grammar/dfa.h"
#include "rollout/grammar/token_automaton.h"
#include "tests/rollout/grammar/naive_matcher.h"
#include "tests/rollout/grammar/piece_tokenizer.h"
#include "tests/support/catch.h"

namespace praetor::grammar {
namespace {

using Json = nlohmann::ordered_json;

/// Whether a value meets a schema of the keywords that we take, read off the specification.
bool meets(const Json& value, const Json& schema, const Json& root);

bool has_type(const Json& value, const std::string& type) {
  return (type == "string" && value.is_string()) || (type == "number" && value.is_number()) ||
         (type == "integer" && value.is_number_integer()) ||
         (type == "boolean" && value.is_boolean()) || (type == "null" && value.is_null()) ||
         (type == "object" && value.is_object()) || (type == "array" && value.is_array());
}

bool meets_string(const std::string& text, const Json& schema) {
  const auto length = std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  });
  if (length < schema.value("minLength", 0) || length > schema.value("maxLength", 1'000'000))
    return false;
  if (!schema.contains("pattern")) return true;
  // The tests' patterns are tied to both ends.
  const auto pattern = schema["pattern"].get<std::string>();
  return praetor::testing::NaiveMatcher::matches(pattern.substr(1, pattern.size() - 2), text);
}

bool meets_object(const Json& value, const Json& schema, const Json& root) {
  for (const Json& name : schema.value("required", Json::array()))
    if (!value.contains(name.get<std::string>())) return false;
  const Json properties = schema.value("properties", Json::object());
  const Json others = schema.value("additionalProperties", Json(true));
  for (const auto& [name, member] : value.items()) {
    if (!meets(member, properties.contains(name) ? properties[name] : others, root)) return false;
  }
  return true;
}

bool meets(const Json& value, const Json& schema, const Json& root) {
  if (schema.is_boolean()) return schema.get<bool>();
  if (schema.contains("$ref"))
    return meets(
        value, root.at(Json::json_pointer(schema["$ref"].get<std::string>().substr(1))), root);
  if (schema.contains("const") && value != schema["const"]) return false;
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end())
    return false;
  if (schema.contains("anyOf") &&
      std::none_of(schema["anyOf"].begin(), schema["anyOf"].end(), [&](const Json& one) {
        return meets(value, one, root);
      }))
    return false;
  if (schema.contains("type")) {
    const Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
    if (std::none_of(types.begin(), types.end(), [&](const Json& t) {
          return has_type(value, t.get<std::string>());
        }))
      return false;
  }
  if (value.is_string() && !meets_string(value.get<std::string>(), schema)) return false;
  if (value.is_object() && !meets_object(value, schema, root)) return false;
  if (!value.is_array()) return true;
  const auto size = static_cast<int64_t>(value.size());
  if (size < schema.value("minItems", 0) || size > schema.value("maxItems", 1'000'000))
    return false;
  return !schema.contains("items") ||
         std::all_of(value.begin(), value.end(), [&](const Json& item) {
           return meets(item, schema["items"], root);
         });
}

bool accepts(const Json& schema, std::string_view text) {
  const Nfa nfa(*schema_expression(schema));
  Dfa dfa(nfa);
  int32_t state = dfa.start();
  for (const char byte : text) {
    if (state == Dfa::kDead) return false;
    state = dfa.step(state, static_cast<uint8_t>(byte));
  }
  return state != Dfa::kDead && dfa.accepting(state);
}

bool accepts(const char* schema, std::string_view text) {
  return accepts(Json::parse(schema), text);
}

std::string refusal(const char* schema) {
  try {
    schema_expression(Json::parse(schema));
  } catch (const InvalidArgument& failure) {
    return failure.what();
  }
  return "accepted";
}

/// Schemas of which a random text comes to its end soon.
const char* const kSchemas[] = {
    R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"boolean"},
        "c":{"type":"null"}},"required":["b"]})",
    R"({"type":"object","properties":{"name":{"type":"string","maxLength":4},
        "tags":{"type":"array","items":{"enum":["x","y",3,null]},"minItems":1,"maxItems":3}},
        "required":["name","tags"],"additionalProperties":false})",
    R"({"type":"array","items":{"anyOf":[{"type":"number"},{"const":{"k":[1,"é"]}}]},"maxItems":4})",
    R"({"type":["string","null"],"minLength":1,"maxLength":3})",
    R"({"type":"string","pattern":"^[a-c\\d\"\\n\\\\]{2,5}$"})",
    R"({"$defs":{"p":{"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":2}},
        "type":"object","properties":{"from":{"$ref":"#/$defs/p"},"to":{"$ref":"#/$defs/p"}},
        "required":["from","to"]})",
    R"({"type":"object","additionalProperties":{"type":"boolean"}})",
    R"({"type":"object"})",
    R"({})",
    R"({"const":"a \" b"})",
};

/// A text of random tokens from those allowed, more likely to end as it grows longer.
std::string random_text(TokenAutomaton& automaton,
                        const Tokenizer& tokenizer,
                        RandomStream& random) {
  const std::vector<int64_t> stops = {0};
  auto place = automaton.start();
  std::string text;
  for (int length = 0; length < 4000; ++length) {
    std::vector<float> z(static_cast<size_t>(tokenizer.vocab_size()), 0.0F);
    automaton.bar(place, stops, z);
    std::vector<int64_t> allowed;
    for (size_t id = 0; id < z.size(); ++id)
      if (z[id] == 0.0F) allowed.push_back(static_cast<int64_t>(id));
    REQUIRE(!allowed.empty());
    int64_t token = allowed[random.below(allowed.size())];
    // What closes something, when it may stand: long texts come to an end.
    for (const char* closing : {"}", "]", "\""})
      for (const int64_t id : allowed)
        if (length > 30 && tokenizer.token_bytes(id, false) == closing) token = id;
    if (token == 0) break;
    text += tokenizer.token_bytes(token, false);
    place = automaton.advance(place, token);
    if (automaton.complete(place)) break;
  }
  REQUIRE(automaton.accepting(place));
  return text;
}

}  // namespace

TEST_CASE("every text that a schema lets through parses and meets it", "[rollout][cpu]") {
  const auto tokenizer = praetor::testing::json_pieces();
  const auto table = std::make_shared<const TokenTable>(tokenizer, tokenizer.vocab_size());
  RandomStream random({.job_seed = 50});
  for (const char* text : kSchemas) {
    CAPTURE(text);
    const Json schema = Json::parse(text);
    TokenAutomaton automaton(Nfa(*schema_expression(schema)), table);
    for (int i = 0; i < 60; ++i) {
      const std::string made = random_text(automaton, tokenizer, random);
      CAPTURE(made);
      const Json value = Json::parse(made, nullptr, false);
      REQUIRE_FALSE(value.is_discarded());
      CHECK(meets(value, schema, schema));
    }
  }
}

TEST_CASE("schemas let their values through as they are written", "[rollout][cpu]") {
  CHECK(accepts(kSchemas[0], R"({"a": 1, "b": true, "c": null})"));
  CHECK(accepts(kSchemas[0], R"({"a":1,"b":true})"));
  CHECK(accepts(kSchemas[0], R"({"b":false})"));
  CHECK(accepts(kSchemas[0], R"({"b":false,"c":null})"));
  CHECK_FALSE(accepts(kSchemas[0], R"({"a":1})"));
  CHECK_FALSE(accepts(kSchemas[0], R"({"b":true,"a":1})"));
  CHECK_FALSE(accepts(kSchemas[0], R"({,"b":true})"));
  CHECK_FALSE(accepts(kSchemas[0], R"({"b":true,})"));
  CHECK_FALSE(accepts(kSchemas[0], R"({"b": true, "d": 1})"));
  for (const char* number : {"0", "-0", "12", "-3.50", "1e5", "2.5E-07", "1234567890123456"})
    CHECK(accepts(R"({"type":"number"})", number));
  for (const char* number : {"", "01", "1.", ".5", "+1", "1e", "0x1", "1e999", "NaN"})
    CHECK_FALSE(accepts(R"({"type":"number"})", number));
  CHECK_FALSE(accepts(R"({"type":"integer"})", "1.0"));
  CHECK(accepts(R"({"type":"array","items":{"type":"null"}})", "[]"));
  CHECK(accepts(R"({"type":"array","items":{"type":"null"},"minItems":2})", "[null,null, null]"));
  CHECK_FALSE(accepts(R"({"type":"array","items":{"type":"null"},"minItems":2})", "[null]"));
  CHECK_FALSE(accepts(R"({"type":"array","items":{"type":"null"},"maxItems":1})", "[null,null]"));
  CHECK(accepts(R"({"type":"array","maxItems":0})", "[]"));
  CHECK_FALSE(accepts(R"({"type":"array","maxItems":0})", "[1]"));
  CHECK(accepts(R"({"type":"object","additionalProperties":false})", "{}"));
}

TEST_CASE("strings are escaped as JSON wants them", "[rollout][cpu]") {
  const char* any = R"({"type":"string"})";
  for (const char* text : {R"("")", R"("é\n\"\\\/")", R"("\u00e9")", R"("\ud83d\uDE00")", "\"😀\""})
    CHECK(accepts(any, text));
  for (const char* text : {"\"\n\"",
                           R"("\x")",
                           R"("\ud83d")",
                           R"("\ude00")",
                           R"("\ud83dA")",
                           "\"",
                           "\"\xC3\"",
                           "\"a\"b"})
    CHECK_FALSE(accepts(any, text));
  // A pair of surrogates is one character.
  CHECK(accepts(R"({"type":"string","maxLength":1})", R"("\ud83d\ude00")"));
  CHECK_FALSE(accepts(R"({"type":"string","maxLength":1})", R"("ab")"));
  CHECK(accepts(R"({"type":"string","minLength":2})", "\"éé\""));
  CHECK_FALSE(accepts(R"({"type":"string","minLength":2})", "\"é\""));
  // A pattern is about the value: the characters " \ and line feed stand escaped.
  CHECK(accepts(kSchemas[4], R"("a\"\n\\")"));
  CHECK_FALSE(accepts(kSchemas[4], R"("a")"));
  CHECK(accepts(R"({"type":"string","pattern":"b+"})", R"("a\tbc")"));
  CHECK_FALSE(accepts(R"({"type":"string","pattern":"b+"})", R"("ac")"));
}

TEST_CASE("any value may be nested as deep as is said", "[rollout][cpu]") {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') + "1" +
           std::string(static_cast<size_t>(depth), ']');
  };
  CHECK(accepts("{}", nested(kAnyJsonDepth)));
  CHECK_FALSE(accepts("{}", nested(kAnyJsonDepth + 1)));
  CHECK(accepts("true", R"({"a": [true, {"b": null}], "c": "d"})"));
  CHECK(accepts(R"({"type":"object"})", R"({"a": [true, {"b": null}]})"));
  CHECK_FALSE(accepts(R"({"type":"object"})", "[1]"));
}

TEST_CASE("what schemas cannot hold is refused with its pointer", "[rollout][cpu]") {
  using Catch::Matchers::StartsWith;
  CHECK_THAT(refusal(R"({"type":"object","properties":{"a/b":{"type":"integer","minimum":3}}})"),
             StartsWith("#/properties/a~1b/minimum: this keyword is not supported"));
  CHECK_THAT(refusal(R"({"type":"strin"})"), StartsWith("#/type: \"strin\" is no type"));
  CHECK_THAT(refusal(R"({"type":"array","items":[1]})"), StartsWith("#/items: an object"));
  CHECK_THAT(refusal(R"({"properties":{}})"), StartsWith("#/properties: this keyword"));
  CHECK_THAT(refusal(R"({"type":"string","minLength":3,"maxLength":2})"),
             StartsWith("#/maxLength: 2"));
  CHECK_THAT(refusal(R"({"type":"string","minLength":-1})"), StartsWith("#/minLength: a whole"));
  CHECK_THAT(refusal(R"({"type":"string","pattern":"a(?=b)c"})"),
             StartsWith("#/pattern: offset 1: only the groups"));
  CHECK_THAT(refusal(R"({"type":"string","pattern":"a","minLength":1})"),
             StartsWith("#/pattern: beside minLength"));
  CHECK_THAT(refusal(R"({"type":"object","required":["x"]})"),
             StartsWith("#/required: \"x\" is not among"));
  CHECK_THAT(refusal(R"({"enum":[]})"), StartsWith("#/enum: a list"));
  CHECK_THAT(refusal(R"({"type":"integer","enum":["a"]})"), StartsWith("#/enum: \"a\" is not of"));
  CHECK_THAT(refusal(R"({"anyOf":[{"type":"null"},{"oneOf":[]}]})"),
             StartsWith("#/anyOf/1/oneOf: this keyword"));
  CHECK_THAT(refusal(R"({"$ref":"#/$defs/x"})"), StartsWith("#/$ref: \"#/$defs/x\" is not there"));
  CHECK_THAT(refusal(R"({"$ref":"http://x"})"), StartsWith("#/$ref: only"));
  CHECK_THAT(
      refusal(
          R"({"$ref":"#/$defs/x","$defs":{"x":{"type":"array","items":{"$ref":"#/$defs/x"}}}})"),
      StartsWith("#/$defs/x/items/$ref: \"#/$defs/x\" is recursive"));
  CHECK_THAT(refusal(R"({"type":"array","items":{"$ref":"#"}})"),
             StartsWith("#/items/$ref: \"#\" is recursive"));
  CHECK_THAT(refusal("false"), StartsWith("#: false is met by no value"));
  CHECK_THAT(refusal("3"), StartsWith("#: an object"));
  CHECK_THAT(refusal(R"({"type":"object","properties":{"a":{}},"additionalProperties":{}})"),
             StartsWith("#/additionalProperties: a schema beside properties"));
}

}  // namespace praetor::grammar
