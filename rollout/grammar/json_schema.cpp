#include "rollout/grammar/json_schema.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/tokenizer/unicode.h"
#include "rollout/grammar/dfa.h"
#include "rollout/grammar/nfa.h"
#include "rollout/grammar/numbers.h"
#include "rollout/grammar/pattern.h"
#include "rollout/grammar/schema_parts.h"

namespace praetor::grammar {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostCount = 1'000'000;
constexpr int64_t kMostDivisor = 10'000;

const std::vector<std::string>& type_names() {
  static const std::vector<std::string> kNames = {
      "string", "number", "integer", "boolean", "null", "object", "array"};
  return kNames;
}

ExpressionPtr parsed(std::string_view pattern) {
  return parse_pattern(pattern, Extent::kWhole);
}

CodePoints needs_escape() {
  CodePoints out{0, 0x1F};
  out.add('"', '"');
  out.add('\\', '\\');
  return out;
}

/// One character of a string, escaped or not. Halves of surrogate pairs come in pairs.
ExpressionPtr string_character() {
  static const ExpressionPtr kOne =
      choice({character(needs_escape().complement()),
              parsed(R"(\\(["\\/bfnrt]|u([0-9A-Ca-cE-Fe-f][0-9A-Fa-f]{3}|[Dd][0-7][0-9A-Fa-f]{2}|)"
                     R"([Dd][89ABab][0-9A-Fa-f]{2}\\u[Dd][C-Fc-f][0-9A-Fa-f]{2})))")});
  return kOne;
}

ExpressionPtr quoted(ExpressionPtr inside) {
  return sequence({literal("\""), std::move(inside), literal("\"")});
}

ExpressionPtr any_string() {
  static const ExpressionPtr kAny = quoted(repeat(string_character(), 0));
  return kAny;
}

ExpressionPtr boolean() {
  static const ExpressionPtr kBoolean = choice({literal("true"), literal("false")});
  return kBoolean;
}

ExpressionPtr comma() {
  static const ExpressionPtr kComma = parsed(", ?");
  return kComma;
}

ExpressionPtr colon() {
  static const ExpressionPtr kColon = parsed(": ?");
  return kColon;
}

ExpressionPtr in_brackets(const char* open, ExpressionPtr inside, const char* close) {
  return sequence({literal(open), std::move(inside), literal(close)});
}

ExpressionPtr array_of(ExpressionPtr item, int64_t least = 0, int64_t most = kUnbounded) {
  return in_brackets("[", list(std::move(item), comma(), least, most), "]");
}

/// An object of any keys.
ExpressionPtr map_of(ExpressionPtr value) {
  ExpressionPtr entry = sequence({any_string(), colon(), std::move(value)});
  return in_brackets("{", list(std::move(entry), comma(), 0, kUnbounded), "}");
}

ExpressionPtr any_value(int depth) {
  std::vector<ExpressionPtr> kinds = {any_string(), numbers({}), boolean(), literal("null")};
  if (depth > 0) {
    const ExpressionPtr inner = any_value(depth - 1);
    kinds.push_back(array_of(inner));
    kinds.push_back(map_of(inner));
  }
  return choice(std::move(kinds));
}

std::string escaped(char32_t code) {
  std::string text;
  unicode::append(text, code);
  const std::string json = Json(text).dump();
  return json.substr(1, json.size() - 2);
}

/// An expression over the characters of a string as one over what stands between its quotes.
ExpressionPtr as_string_content(const ExpressionPtr& e) {
  if (e->kind == Expression::Kind::kClass) {
    std::vector<ExpressionPtr> ways;
    const CodePoints escapes = needs_escape();
    CodePoints barred = e->points.complement();
    barred.add(escapes);
    const CodePoints plain = barred.complement();
    if (!plain.empty()) ways.push_back(character(plain));
    for (const CodePoints::Range& r : escapes.ranges()) {
      for (char32_t code = r.low; code <= r.high; ++code)
        if (e->points.contains(code)) ways.push_back(literal(escaped(code)));
    }
    return choice(std::move(ways));
  }
  auto out = std::make_shared<Expression>(*e);
  for (ExpressionPtr& part : out->parts) part = as_string_content(part);
  return out;
}

bool accepts(const ExpressionPtr& expression, const std::string& text) {
  const Nfa nfa(*expression);
  Dfa dfa(nfa);
  int32_t state = dfa.start();
  for (const char byte : text) {
    if (state == Dfa::kDead) return false;
    state = dfa.step(state, static_cast<uint8_t>(byte));
  }
  return state != Dfa::kDead && dfa.accepting(state);
}

/// A schema in its place. Every complaint begins with the JSON pointer to what is wrong.
class Compiler {
 public:
  explicit Compiler(const Json& root) : parts_(root) {}

  ExpressionPtr value(const SchemaPart& schema) {
    std::vector<ExpressionPtr> ways;
    for (const SchemaPart& part : parts_.of(schema)) ways.push_back(one(part));
    return ways.size() == 1 ? ways[0] : choice(std::move(ways));
  }

 private:
  template <typename... Args>
  [[noreturn]] static void refuse(const std::string& at, const Args&... what) {
    refuse_schema(at, what...);
  }

  static std::string below(const std::string& at, const std::string& key) {
    return pointer_below(at, key);
  }

  /// A schema that lies in `part`.
  ExpressionPtr inner(const SchemaPart& part, const Json& schema, const std::string& at) {
    return value({schema, at, part.followed, part.depth + 1});
  }

  ExpressionPtr one(const SchemaPart& part) {
    const Json& schema = part.schema;
    const std::string& at = part.at;
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) refuse(at, "false is met by no value");
      return any_value(kAnyJsonDepth);
    }
    if (!schema.is_object()) refuse(at, "an object (or true) is wanted");
    for (const char* key : {"enum", "const"})
      if (schema.contains(key)) return enumeration(part, key);
    if (!schema.contains("type")) {
      check_keys(schema, at, {});
      return any_value(kAnyJsonDepth);
    }
    const std::vector<std::string> types = types_of(schema, at);
    check_keys(schema, at, keys_of(types));
    std::vector<ExpressionPtr> ways;
    for (const std::string& type : types) ways.push_back(typed(part, type));
    return ways.size() == 1 ? ways[0] : choice(std::move(ways));
  }

  /// Refuses keywords other than `known` and those that say nothing.
  static void check_keys(const Json& schema,
                         const std::string& at,
                         std::vector<std::string> known) {
    known.insert(known.end(), {"enum", "const", "allOf", "anyOf", "oneOf", "$ref"});
    for (const auto& [key, value] : schema.items()) {
      if (!is_silent(key) && std::find(known.begin(), known.end(), key) == known.end()) {
        refuse(below(at, key),
               "this keyword is not supported here; known: ",
               join(known, ", "),
               ", ",
               join(silent_keywords(), ", "));
      }
    }
  }

  static std::vector<std::string> keys_of(const std::vector<std::string>& types) {
    std::vector<std::string> keys = {"type"};
    for (const std::string& type : types) {
      if (type == "string") keys.insert(keys.end(), {"minLength", "maxLength", "pattern"});
      if (type == "integer" || type == "number") {
        keys.insert(keys.end(),
                    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"});
      }
      if (type == "array")
        keys.insert(keys.end(), {"items", "prefixItems", "minItems", "maxItems"});
      if (type == "object")
        keys.insert(keys.end(), {"properties", "required", "additionalProperties"});
    }
    return keys;
  }

  static std::vector<std::string> types_of(const Json& schema, const std::string& at) {
    const Json& type = schema["type"];
    const Json list = type.is_array() ? type : Json::array({type});
    std::vector<std::string> out;
    for (const Json& name : list) {
      const std::string text = name.is_string() ? name.get<std::string>() : "";
      if (std::find(type_names().begin(), type_names().end(), text) == type_names().end())
        refuse(below(at, "type"), name.dump(), " is no type; known: ", join(type_names(), ", "));
      out.push_back(text);
    }
    if (out.empty()) refuse(below(at, "type"), "the list is empty");
    return out;
  }

  ExpressionPtr typed(const SchemaPart& part, const std::string& type) {
    if (type == "string") return string(part.schema, part.at);
    if (type == "number" || type == "integer") return number(part.schema, type, part.at);
    if (type == "boolean") return boolean();
    if (type == "null") return literal("null");
    if (type == "array") return array(part);
    return object(part);
  }

  /// What is in all of `parts`, checked to be something.
  static ExpressionPtr all(std::vector<ExpressionPtr> parts, const std::string& at) {
    ExpressionPtr out = all_of(std::move(parts));
    try {
      const Nfa known(*out);
    } catch (const InvalidArgument& failure) {
      refuse(at, failure.what());
    }
    return out;
  }

  static std::optional<Bound> bound(const Json& schema, const std::string& at, bool low) {
    std::optional<Bound> out;
    std::optional<double> held;
    for (const bool exclusive : {false, true}) {
      const char* key = exclusive ? (low ? "exclusiveMinimum" : "exclusiveMaximum")
                                  : (low ? "minimum" : "maximum");
      if (!schema.contains(key)) continue;
      if (!schema[key].is_number()) refuse(below(at, key), "a number is wanted");
      const auto value = schema[key].get<double>();
      // Of two bounds the tighter one counts; of two that are equal the exclusive one.
      if (held && (low ? value < *held : value > *held)) continue;
      held = value;
      out = bound_of(schema[key], exclusive);
    }
    return out;
  }

  static ExpressionPtr number(const Json& schema, const std::string& type, const std::string& at) {
    NumberRange range{.low = bound(schema, at, true), .high = bound(schema, at, false)};
    bool whole = type == "integer";
    if (schema.contains("multipleOf")) {
      const Json& divisor = schema["multipleOf"];
      if (!divisor.is_number_integer() || divisor < 1 || divisor > kMostDivisor)
        refuse(below(at, "multipleOf"),
               "only whole numbers from 1 to ",
               kMostDivisor,
               " are supported");
      range.multiple_of = divisor.get<int64_t>();
      whole = true;
    }
    const ExpressionPtr out = whole ? integers(range) : numbers(range);
    if (!out) refuse(at, "no ", type, " of at most 16 digits lies within its bounds");
    return range.unbounded() && range.multiple_of == 1 ? out : all({out}, at);
  }

  static std::optional<int64_t> count(const Json& schema, const char* key, const std::string& at) {
    if (!schema.contains(key)) return std::nullopt;
    const Json& value = schema[key];
    if (!value.is_number_integer() || value < 0 || value > kMostCount)
      refuse(below(at, key), "a whole number from 0 to ", kMostCount, " is wanted");
    return value.get<int64_t>();
  }

  static std::pair<int64_t, int64_t> counts(const Json& schema,
                                            const char* least_key,
                                            const char* most_key,
                                            const std::string& at) {
    const int64_t least = count(schema, least_key, at).value_or(0);
    const int64_t most = count(schema, most_key, at).value_or(kUnbounded);
    if (most != kUnbounded && least > most)
      refuse(below(at, most_key), most, " is below ", least_key, ", ", least);
    return {least, most};
  }

  static ExpressionPtr string(const Json& schema, const std::string& at) {
    const auto [least, most] = counts(schema, "minLength", "maxLength", at);
    const ExpressionPtr length = repeat(string_character(), least, most);
    if (!schema.contains("pattern")) return quoted(length);
    const std::string here = below(at, "pattern");
    if (!schema["pattern"].is_string()) refuse(here, "a text is wanted");
    ExpressionPtr content;
    try {
      content =
          as_string_content(parse_pattern(schema["pattern"].get<std::string>(), Extent::kPart));
    } catch (const InvalidArgument& failure) {
      refuse(here, failure.what());
    }
    if (least == 0 && most == kUnbounded) return quoted(content);
    return quoted(all({content, length}, here));
  }

  ExpressionPtr array(const SchemaPart& part) {
    const Json& schema = part.schema;
    const auto [least, most] = counts(schema, "minItems", "maxItems", part.at);
    if (schema.contains("prefixItems")) return tuple(part, least, most);
    if (!schema.contains("items")) return array_of(any_value(kAnyJsonDepth - 1), least, most);
    return array_of(items(part), least, most);
  }

  ExpressionPtr items(const SchemaPart& part) {
    return inner(part, part.schema["items"], below(part.at, "items"));
  }

  /// An array whose first items have schemas of their own, built from its end.
  ExpressionPtr tuple(const SchemaPart& part, int64_t least, int64_t most) {
    const Json& schema = part.schema;
    const std::string here = below(part.at, "prefixItems");
    const Json& list = schema["prefixItems"];
    if (!list.is_array() || list.empty()) refuse(here, "a list of schemas is wanted");
    const auto named = static_cast<int64_t>(list.size());
    const bool more = schema.contains("items") && schema["items"] != false;
    if (!more && least > named) {
      refuse(below(part.at, "minItems"),
             least,
             " items, but only the ",
             named,
             " of prefixItems are written without items");
    }
    ExpressionPtr tail = literal("");
    if (more && (most == kUnbounded || most > named)) {
      tail = repeat(sequence({comma(), items(part)}),
                    std::max<int64_t>(0, least - named),
                    most == kUnbounded ? kUnbounded : most - named);
    }
    for (int64_t i = named - 1; i >= 0; --i) {
      if (most != kUnbounded && i >= most) continue;
      const auto place = static_cast<size_t>(i);
      std::vector<ExpressionPtr> written = {inner(part, list[place], str(here, "/", i)), tail};
      if (i > 0) written.insert(written.begin(), comma());
      tail = sequence(std::move(written));
      if (i >= least) tail = repeat(tail, 0, 1);
    }
    return in_brackets("[", tail, "]");
  }

  static std::vector<std::string> required_of(const Json& schema, const std::string& at) {
    if (!schema.contains("required")) return {};
    const std::string here = below(at, "required");
    const Json& list = schema["required"];
    if (!list.is_array()) refuse(here, "a list of property names is wanted");
    std::vector<std::string> out;
    for (const Json& name : list) {
      if (!name.is_string()) refuse(here, name.dump(), " is no property name");
      out.push_back(name.get<std::string>());
      const bool known = schema.contains("properties") && schema["properties"].is_object() &&
                         schema["properties"].contains(out.back());
      if (!known) refuse(here, "\"", printable(out.back()), "\" is not among the properties");
    }
    return out;
  }

  ExpressionPtr object(const SchemaPart& part) {
    const Json& schema = part.schema;
    const std::string& at = part.at;
    const std::vector<std::string> required = required_of(schema, at);
    const bool named = schema.contains("properties");
    if (schema.contains("additionalProperties")) {
      const Json& others = schema["additionalProperties"];
      const std::string here = below(at, "additionalProperties");
      if (!others.is_boolean()) {
        if (named) refuse(here, "a schema beside properties is not supported");
        return map_of(inner(part, others, here));
      }
      if (!named && !others.get<bool>()) return literal("{}");
    }
    if (!named) return map_of(any_value(kAnyJsonDepth - 1));
    const std::string here = below(at, "properties");
    if (!schema["properties"].is_object()) refuse(here, "an object of schemas is wanted");
    std::vector<ExpressionPtr> items;
    std::vector<bool> needed;
    for (const auto& [name, property] : schema["properties"].items()) {
      items.push_back(sequence(
          {literal(Json(name).dump()), colon(), inner(part, property, below(here, name))}));
      needed.push_back(std::find(required.begin(), required.end(), name) != required.end());
    }
    return in_brackets("{", fields(comma(), items, std::move(needed)), "}");
  }

  ExpressionPtr enumeration(const SchemaPart& part, const char* key) {
    const Json& schema = part.schema;
    const std::string here = below(part.at, key);
    const bool many = std::string_view(key) == "enum";
    if (many && (!schema[key].is_array() || schema[key].empty()))
      refuse(here, "a list of values is wanted");
    const Json list = many ? schema[key] : Json::array({schema[key]});
    const auto types = schema.contains("type") ? types_of(schema, part.at) : type_names();
    SchemaPart rest{Json::object(), part.at, part.followed, part.depth};
    for (const auto& [name, value] : schema.items())
      if (name != key && !is_silent(name)) rest.schema[name] = value;
    // What else the schema asks for leaves some of the values out.
    const bool more = rest.schema.size() > (schema.contains("type") ? 1U : 0U);
    const ExpressionPtr others = more ? one(rest) : nullptr;
    std::vector<ExpressionPtr> ways;
    for (const Json& option : list) {
      const bool fits = std::any_of(types.begin(), types.end(), [&](const std::string& type) {
        return has_type(option, type);
      });
      if (fits && (!others || accepts(others, option.dump())))
        ways.push_back(literal(option.dump()));
    }
    if (ways.empty()) refuse(here, "no value of the list meets what stands beside it");
    return choice(std::move(ways));
  }

  SchemaParts parts_;
};

}  // namespace

ExpressionPtr schema_expression(const nlohmann::ordered_json& schema) {
  return Compiler(schema).value({schema, "#"});
}

}  // namespace praetor::grammar
