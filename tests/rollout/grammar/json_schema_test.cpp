#include "rollout/grammar/json_schema.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/error.h"
#include "core/base/random.h"
#include "rollout/grammar/dfa.h"
#include "rollout/grammar/token_automaton.h"
#include "tests/rollout/grammar/naive_matcher.h"
#include "tests/rollout/grammar/piece_tokenizer.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

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

/// How many of the schemas that a keyword lists a value meets.
int64_t met_of(const Json& list, const Json& value, const Json& root) {
  return std::count_if(
      list.begin(), list.end(), [&](const Json& one) { return meets(value, one, root); });
}

bool meets_number(const Json& value, const Json& schema) {
  if (schema.contains("minimum") && value < schema["minimum"]) return false;
  if (schema.contains("maximum") && value > schema["maximum"]) return false;
  if (schema.contains("exclusiveMinimum") && value <= schema["exclusiveMinimum"]) return false;
  if (schema.contains("exclusiveMaximum") && value >= schema["exclusiveMaximum"]) return false;
  return !schema.contains("multipleOf") ||
         (value.is_number_integer() &&
          value.get<int64_t>() % schema["multipleOf"].get<int64_t>() == 0);
}

bool meets_array(const Json& value, const Json& schema, const Json& root) {
  const auto size = static_cast<int64_t>(value.size());
  if (size < schema.value("minItems", 0) || size > schema.value("maxItems", 1'000'000))
    return false;
  const Json first = schema.value("prefixItems", Json::array());
  const Json others = schema.value("items", Json(true));
  for (size_t i = 0; i < value.size(); ++i)
    if (!meets(value[i], i < first.size() ? first[i] : others, root)) return false;
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
  const auto size_of = [&](const char* key) { return static_cast<int64_t>(schema[key].size()); };
  if (schema.contains("anyOf") && met_of(schema["anyOf"], value, root) == 0) return false;
  if (schema.contains("oneOf") && met_of(schema["oneOf"], value, root) != 1) return false;
  if (schema.contains("allOf") && met_of(schema["allOf"], value, root) != size_of("allOf"))
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
  if (value.is_number() && !meets_number(value, schema)) return false;
  return !value.is_array() || meets_array(value, schema, root);
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
    R"({"type":"integer","minimum":-13,"exclusiveMaximum":1207,"multipleOf":3})",
    R"({"type":"number","exclusiveMinimum":-0.25,"maximum":31.5})",
    R"({"type":"array","prefixItems":[{"type":"null"},{"type":"boolean"}],"items":{"const":1},
        "minItems":1,"maxItems":4})",
    R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer","minimum":3}}},
                 {"properties":{"a":{"maximum":12},"b":{"type":"null"}},"required":["a"]}]})",
    R"({"oneOf":[{"type":"object","properties":{"k":{"const":"x"},"v":{"type":"null"}},
                  "required":["k"]},
                 {"type":"object","properties":{"k":{"const":"y"},"w":{"type":"boolean"}},
                  "required":["k","w"]},
                 {"type":"string","maxLength":2}]})",
    R"({"type":"string","pattern":"^[a-c\"]*$","minLength":2,"maxLength":4})",
    R"({"type":["integer","string"],"enum":[1,2,"c","dd"],"anyOf":[{"minimum":2,"type":"integer"},
        {"type":"string","minLength":2}]})",
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
  CHECK_THAT(refusal(R"({"type":"object","properties":{"a/b":{"type":"string","format":"uri"}}})"),
             StartsWith("#/properties/a~1b/format: this keyword is not supported"));
  CHECK_THAT(refusal(R"({"type":"strin"})"), StartsWith("#/type: \"strin\" is no type"));
  CHECK_THAT(refusal(R"({"type":"array","items":[1]})"), StartsWith("#/items: an object"));
  CHECK_THAT(refusal(R"({"properties":{}})"), StartsWith("#/properties: this keyword"));
  CHECK_THAT(refusal(R"({"type":"string","minLength":3,"maxLength":2})"),
             StartsWith("#/maxLength: 2"));
  CHECK_THAT(refusal(R"({"type":"string","minLength":-1})"), StartsWith("#/minLength: a whole"));
  CHECK_THAT(refusal(R"({"type":"string","pattern":"a(?=b)c"})"),
             StartsWith("#/pattern: offset 1: only the groups"));
  CHECK_THAT(refusal(R"({"type":"string","pattern":"^a$","minLength":2})"),
             StartsWith("#/pattern: no text meets all of it"));
  CHECK_THAT(refusal(R"({"type":"object","required":["x"]})"),
             StartsWith("#/required: \"x\" is not among"));
  CHECK_THAT(refusal(R"({"enum":[]})"), StartsWith("#/enum: a list"));
  CHECK_THAT(refusal(R"({"type":"integer","enum":["a"]})"),
             StartsWith("#/enum: no value of the list"));
  CHECK_THAT(refusal(R"({"anyOf":[{"type":"null"},{"oneOf":[]}]})"),
             StartsWith("#/anyOf/1/oneOf: a list of schemas"));
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

TEST_CASE("values pass exactly where the Python package jsonschema takes them", "[rollout][cpu]") {
  std::ifstream file(praetor::testing::golden("json_schema.json"));
  const Json golden = Json::parse(file);
  int64_t texts = 0;
  for (const Json& c : golden.at("cases")) {
    CAPTURE(c["schema"].dump());
    for (const bool valid : {true, false}) {
      for (const Json& text : c[valid ? "valid" : "invalid"]) {
        CAPTURE(text);
        CHECK(accepts(c["schema"], text.get<std::string>()) == valid);
        ++texts;
      }
    }
  }
  CHECK(texts > 2000);
  // A whole array of an enum has one form.
  CHECK(accepts(Json::parse(R"({"enum":[null,[1,2]]})"), "[1,2]"));
}

TEST_CASE("integers are held to their bounds and divisors, one by one", "[rollout][cpu]") {
  for (const char* text : {R"({"type":"integer","minimum":7})",
                           R"({"type":"integer","maximum":-12})",
                           R"({"type":"integer","exclusiveMinimum":-100,"exclusiveMaximum":100})",
                           R"({"type":"integer","minimum":0,"maximum":0})",
                           R"({"type":"integer","exclusiveMinimum":0,"maximum":999})",
                           R"({"type":"integer","minimum":-1000.5,"maximum":99.5})",
                           R"({"type":"integer","minimum":98,"maximum":1003,"multipleOf":7})",
                           R"({"type":"integer","multipleOf":12})",
                           R"({"type":"integer","minimum":3,"exclusiveMinimum":5})",
                           R"({"type":"number","minimum":-5,"multipleOf":4})",
                           R"({"type":"integer","maximum":1e3,"minimum":-1.5e2})"}) {
    CAPTURE(text);
    const Json schema = Json::parse(text);
    for (int64_t i = -1010; i <= 1010; ++i) {
      CAPTURE(i);
      REQUIRE(accepts(schema, std::to_string(i)) == meets(Json(i), schema, schema));
    }
    CHECK_FALSE(accepts(schema, "007"));
    CHECK_FALSE(accepts(schema, "1.0"));
  }
  const char* wide = R"({"type":"integer","minimum":-9007199254740991,"maximum":9007199254740991})";
  CHECK(accepts(wide, "9007199254740991"));
  CHECK_FALSE(accepts(wide, "9007199254740992"));
  CHECK(accepts(wide, "-9007199254740991"));
  CHECK_FALSE(accepts(wide, "-9007199254740992"));
  // A bound beyond 16 digits bars nothing that is ever written.
  CHECK(accepts(R"({"type":"integer","maximum":9223372036854775807})", "9999999999999999"));
}

TEST_CASE("numbers are held to their bounds digit by digit", "[rollout][cpu]") {
  for (const char* text : {R"({"type":"number","minimum":0,"maximum":1})",
                           R"({"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1})",
                           R"({"type":"number","minimum":-0.05,"exclusiveMaximum":10.25})",
                           R"({"type":"number","exclusiveMinimum":-3.5})",
                           R"({"type":"number","maximum":-2})"}) {
    CAPTURE(text);
    const Json schema = Json::parse(text);
    for (const char* sign : {"", "-"}) {
      for (const char* whole : {"0", "1", "2", "3", "9", "10", "11", "100"}) {
        for (const char* fraction : {"",
                                     ".0",
                                     ".00",
                                     ".001",
                                     ".05",
                                     ".050",
                                     ".051",
                                     ".049",
                                     ".2",
                                     ".25",
                                     ".250001",
                                     ".5",
                                     ".50",
                                     ".500001",
                                     ".4999",
                                     ".9"}) {
          const std::string number = std::string(sign) + whole + fraction;
          CAPTURE(number);
          REQUIRE(accepts(schema, number) == meets(Json::parse(number), schema, schema));
        }
      }
    }
    CHECK_FALSE(accepts(schema, "1e0"));
  }
}

TEST_CASE("arrays hold their first items to schemas of their own", "[rollout][cpu]") {
  const char* pair = R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"null"}]})";
  for (const char* text : {"[]", "[1]", "[1, null]"}) CHECK(accepts(pair, text));
  for (const char* text : {"[null]", "[1,2]", "[1,null,3]", "[1,]"})
    CHECK_FALSE(accepts(pair, text));
  const char* longer = R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"null"}],
                           "items":{"type":"boolean"},"minItems":2,"maxItems":4})";
  for (const char* text : {"[1,null]", "[1,null,true]", "[1,null,true,false]"})
    CHECK(accepts(longer, text));
  for (const char* text : {"[]", "[1]", "[1,null,null]", "[1,null,true,true,true]"})
    CHECK_FALSE(accepts(longer, text));
  const char* cut = R"({"type":"array","prefixItems":[{"const":1},{"const":2}],"maxItems":1})";
  CHECK(accepts(cut, "[1]"));
  CHECK_FALSE(accepts(cut, "[1,2]"));
}

TEST_CASE("what is asked for together is held together", "[rollout][cpu]") {
  const char* both = R"({"allOf":[
      {"type":"object","properties":{"a":{"type":"number"},"b":{"type":"string"}}},
      {"properties":{"a":{"type":"integer","minimum":5},"c":{"type":"null"}},
       "required":["c","a"]}]})";
  CHECK(accepts(both, R"({"a":5,"b":"x","c":null})"));
  CHECK(accepts(both, R"({"a":7,"c":null})"));
  CHECK_FALSE(accepts(both, R"({"a":4,"c":null})"));
  CHECK_FALSE(accepts(both, R"({"a":5.5,"c":null})"));
  CHECK_FALSE(accepts(both, R"({"a":5})"));
  // Keywords beside anyOf and $ref hold for every choice.
  const char* beside = R"({"type":"integer","minimum":3,"anyOf":[{"maximum":5},{"minimum":8}],
                           "$ref":"#/$defs/even","$defs":{"even":{"multipleOf":2}}})";
  for (const char* text : {"4", "8", "10"}) CHECK(accepts(beside, text));
  for (const char* text : {"2", "3", "5", "6", "7", "9"}) CHECK_FALSE(accepts(beside, text));
  const char* listed = R"({"allOf":[{"enum":[1,2,"a","bb"]},{"enum":[2,"a","bb",3]},
                           {"type":["integer","string"],"minLength":2}]})";
  CHECK(accepts(listed, "2"));
  CHECK(accepts(listed, R"("bb")"));
  for (const char* text : {"1", "3", R"("a")"}) CHECK_FALSE(accepts(listed, text));
  const char* closed = R"({"allOf":[{"type":"object","properties":{"a":{"type":"null"}},
      "additionalProperties":false},{"properties":{"b":{"type":"null"}}}]})";
  CHECK(accepts(closed, R"({"a":null})"));
  CHECK_FALSE(accepts(closed, R"({"a":null,"b":null})"));
}

TEST_CASE("a pattern and a length are held together", "[rollout][cpu]") {
  const char* word = R"({"type":"string","pattern":"^(ab)*c?$","minLength":3,"maxLength":5})";
  for (const char* text : {R"("abc")", R"("abab")", R"("ababc")"}) CHECK(accepts(word, text));
  for (const char* text : {R"("ab")", R"("c")", R"("ababab")", R"("abb")"})
    CHECK_FALSE(accepts(word, text));
}

TEST_CASE("choices of oneOf must be apart", "[rollout][cpu]") {
  using Catch::Matchers::StartsWith;
  for (const char* schema :
       {R"({"oneOf":[{"type":"string"},{"type":"integer"},{"type":["null","boolean"]}]})",
        R"({"oneOf":[{"type":"integer","maximum":3},{"type":"number","exclusiveMinimum":3}]})",
        R"({"oneOf":[{"type":"string","maxLength":3},{"type":"string","minLength":4}]})",
        R"({"oneOf":[{"const":1},{"enum":["a",2]},{"type":"null"}]})",
        R"({"oneOf":[{"type":"object","properties":{"a":{}},"required":["a"]},
                     {"type":"object","properties":{"b":{}},"additionalProperties":false}]})",
        R"({"oneOf":[{"type":"array","maxItems":1},{"type":"array","minItems":2}]})"}) {
    CHECK(refusal(schema) == "accepted");
  }
  for (const char* schema :
       {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})",
        R"({"oneOf":[{"type":"integer","maximum":3},{"type":"integer","minimum":3}]})",
        R"({"oneOf":[{"type":"object","properties":{"a":{}},"required":["a"]},
                     {"type":"object","properties":{"b":{}},"required":["b"]}]})",
        R"({"oneOf":[{"const":1},{"enum":["a",1]}]})",
        R"({"oneOf":[{"type":"string"},{}]})"}) {
    CAPTURE(schema);
    CHECK_THAT(refusal(schema),
               StartsWith("#/oneOf/1: a value may meet this and #/oneOf/0 at once"));
  }
}

TEST_CASE("keywords that cannot be held together are refused", "[rollout][cpu]") {
  using Catch::Matchers::StartsWith;
  CHECK_THAT(refusal(R"({"allOf":[{"type":"string"},{"type":"null"}]})"),
             StartsWith("#: no value meets all that is asked for"));
  CHECK_THAT(refusal(R"({"allOf":[{"type":"string","pattern":"a"},{"pattern":"b"}]})"),
             StartsWith("#: two values of pattern"));
  CHECK_THAT(refusal(R"({"allOf":[{"type":"array","items":{}},{"prefixItems":[{}]}]})"),
             StartsWith("#: prefixItems beside"));
  CHECK_THAT(refusal(R"({"type":"integer","minimum":"3"})"), StartsWith("#/minimum: a number"));
  CHECK_THAT(refusal(R"({"type":"integer","minimum":3,"maximum":2})"),
             StartsWith("#: no text meets all of it"));
  CHECK_THAT(refusal(R"({"type":"integer","minimum":6,"maximum":9,"multipleOf":5})"),
             StartsWith("#: no text meets all of it"));
  CHECK_THAT(refusal(R"({"type":"integer","minimum":1e20})"),
             StartsWith("#: no integer of at most"));
  CHECK_THAT(refusal(R"({"type":"number","multipleOf":0.01})"),
             StartsWith("#/multipleOf: only whole numbers from 1 to"));
  CHECK_THAT(refusal(R"({"type":"array","prefixItems":[]})"), StartsWith("#/prefixItems: a list"));
  CHECK_THAT(refusal(R"({"type":"array","prefixItems":[{}],"minItems":2})"),
             StartsWith("#/minItems: 2 items, but only the 1 of prefixItems"));
  CHECK_THAT(refusal(R"({"type":"integer","enum":[1,2],"minimum":3})"),
             StartsWith("#/enum: no value of the list"));
  std::string deep = R"({"type":"null"})";
  for (int i = 0; i < 70; ++i) deep = R"({"allOf":[)" + deep + "]}";
  CHECK_THAT(refusal(deep.c_str()), Catch::Contains("nested more than 64 deep"));
  std::string doubling = R"({"$ref":"#/$defs/d0","$defs":{"d30":{"type":"null"})";
  for (int i = 0; i < 30; ++i) {
    const std::string next = R"({"$ref":"#/$defs/d)" + std::to_string(i + 1) + R"("})";
    doubling += R"(,"d)" + std::to_string(i) + R"(":{"allOf":[)" + next + "," + next + "]}";
  }
  doubling += "}}";
  CHECK_THAT(refusal(doubling.c_str()), Catch::Contains("multiply to more than"));
}

}  // namespace praetor::grammar
