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
#include "rollout/grammar/pattern.h"

namespace praetor::grammar {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostCount = 1'000'000;
constexpr int kDeepestSchema = 64;

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

ExpressionPtr integer() {
  static const ExpressionPtr kInteger = parsed("-?(0|[1-9][0-9]{0,15})");
  return kInteger;
}

ExpressionPtr number() {
  static const ExpressionPtr kNumber =
      parsed(R"(-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,16})?([eE][+-]?[0-9]{1,2})?)");
  return kNumber;
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
  std::vector<ExpressionPtr> kinds = {any_string(), number(), boolean(), literal("null")};
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

std::string pointer_part(const std::string& key) {
  std::string out;
  for (const char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

bool has_type(const Json& value, const std::string& type) {
  if (type == "string") return value.is_string();
  if (type == "number") return value.is_number();
  if (type == "integer") return value.is_number_integer();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "object") return value.is_object();
  return value.is_array();
}

/// A schema in its place. Every complaint begins with the JSON pointer to what is wrong.
class Compiler {
 public:
  explicit Compiler(const Json& root) : root_(root) {}

  ExpressionPtr value(const Json& schema, const std::string& at) {
    if (depth_ == kDeepestSchema) refuse(at, "schemas are nested more than ", depth_, " deep");
    ++depth_;
    ExpressionPtr out = one(schema, at);
    --depth_;
    return out;
  }

 private:
  template <typename... Args>
  [[noreturn]] static void refuse(const std::string& at, const Args&... what) {
    throw InvalidArgument(at, ": ", what...);
  }

  static std::string below(const std::string& at, const std::string& key) {
    return at + "/" + pointer_part(key);
  }

  ExpressionPtr one(const Json& schema, const std::string& at) {
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) refuse(at, "false is met by no value");
      return any_value(kAnyJsonDepth);
    }
    if (!schema.is_object()) refuse(at, "an object (or true) is wanted");
    if (schema.contains("$ref")) return reference(schema, at);
    if (schema.contains("enum")) return enumeration(schema, at, "enum");
    if (schema.contains("const")) return enumeration(schema, at, "const");
    if (schema.contains("anyOf")) return any_of(schema, at);
    if (!schema.contains("type")) {
      check_keys(schema, at, {});
      return any_value(kAnyJsonDepth);
    }
    const std::vector<std::string> types = types_of(schema, at);
    check_keys(schema, at, keys_of(types));
    std::vector<ExpressionPtr> ways;
    for (const std::string& type : types) ways.push_back(typed(schema, type, at));
    return ways.size() == 1 ? ways[0] : choice(std::move(ways));
  }

  /// Refuses keywords other than `known` and those that say nothing.
  static void check_keys(const Json& schema,
                         const std::string& at,
                         std::vector<std::string> known) {
    for (const char* silent : {"title",
                               "description",
                               "default",
                               "examples",
                               "$schema",
                               "$id",
                               "$comment",
                               "deprecated",
                               "readOnly",
                               "writeOnly",
                               "$defs",
                               "definitions"})
      known.emplace_back(silent);
    for (const auto& [key, value] : schema.items()) {
      if (std::find(known.begin(), known.end(), key) == known.end())
        refuse(below(at, key), "this keyword is not supported here; known: ", join(known, ", "));
    }
  }

  static std::vector<std::string> keys_of(const std::vector<std::string>& types) {
    std::vector<std::string> keys = {"type"};
    for (const std::string& type : types) {
      if (type == "string") keys.insert(keys.end(), {"minLength", "maxLength", "pattern"});
      if (type == "array") keys.insert(keys.end(), {"items", "minItems", "maxItems"});
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

  ExpressionPtr typed(const Json& schema, const std::string& type, const std::string& at) {
    if (type == "string") return string(schema, at);
    if (type == "number") return number();
    if (type == "integer") return integer();
    if (type == "boolean") return boolean();
    if (type == "null") return literal("null");
    if (type == "array") return array(schema, at);
    return object(schema, at);
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
    if (!schema.contains("pattern")) return quoted(repeat(string_character(), least, most));
    const std::string here = below(at, "pattern");
    if (least != 0 || most != kUnbounded)
      refuse(here, "beside minLength or maxLength it is not supported");
    if (!schema["pattern"].is_string()) refuse(here, "a text is wanted");
    try {
      return quoted(
          as_string_content(parse_pattern(schema["pattern"].get<std::string>(), Extent::kPart)));
    } catch (const InvalidArgument& failure) {
      refuse(here, failure.what());
    }
  }

  ExpressionPtr array(const Json& schema, const std::string& at) {
    const auto [least, most] = counts(schema, "minItems", "maxItems", at);
    if (!schema.contains("items")) return array_of(any_value(kAnyJsonDepth - 1), least, most);
    return array_of(value(schema["items"], below(at, "items")), least, most);
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

  ExpressionPtr object(const Json& schema, const std::string& at) {
    const std::vector<std::string> required = required_of(schema, at);
    const bool named = schema.contains("properties");
    if (schema.contains("additionalProperties")) {
      const Json& others = schema["additionalProperties"];
      const std::string here = below(at, "additionalProperties");
      if (!others.is_boolean()) {
        if (named) refuse(here, "a schema beside properties is not supported");
        return map_of(value(others, here));
      }
      if (!named && !others.get<bool>()) return literal("{}");
    }
    if (!named) return map_of(any_value(kAnyJsonDepth - 1));
    const std::string here = below(at, "properties");
    if (!schema["properties"].is_object()) refuse(here, "an object of schemas is wanted");
    std::vector<ExpressionPtr> items;
    std::vector<bool> needed;
    for (const auto& [name, property] : schema["properties"].items()) {
      items.push_back(
          sequence({literal(Json(name).dump()), colon(), value(property, below(here, name))}));
      needed.push_back(std::find(required.begin(), required.end(), name) != required.end());
    }
    return in_brackets("{", fields(comma(), items, std::move(needed)), "}");
  }

  static ExpressionPtr enumeration(const Json& schema, const std::string& at, const char* key) {
    check_keys(schema, at, {key, "type"});
    const std::string here = below(at, key);
    const bool many = std::string_view(key) == "enum";
    if (many && (!schema[key].is_array() || schema[key].empty()))
      refuse(here, "a list of values is wanted");
    const Json list = many ? schema[key] : Json::array({schema[key]});
    const auto types = schema.contains("type") ? types_of(schema, at) : type_names();
    std::vector<ExpressionPtr> ways;
    for (const Json& one : list) {
      const bool fits = std::any_of(
          types.begin(), types.end(), [&](const std::string& type) { return has_type(one, type); });
      if (!fits) refuse(here, one.dump(), " is not of the type that stands beside");
      ways.push_back(literal(one.dump()));
    }
    return choice(std::move(ways));
  }

  ExpressionPtr any_of(const Json& schema, const std::string& at) {
    check_keys(schema, at, {"anyOf"});
    const std::string here = below(at, "anyOf");
    if (!schema["anyOf"].is_array() || schema["anyOf"].empty())
      refuse(here, "a list of schemas is wanted");
    std::vector<ExpressionPtr> ways;
    for (size_t i = 0; i < schema["anyOf"].size(); ++i)
      ways.push_back(value(schema["anyOf"][i], str(here, "/", i)));
    return choice(std::move(ways));
  }

  ExpressionPtr reference(const Json& schema, const std::string& at) {
    check_keys(schema, at, {"$ref"});
    const std::string here = below(at, "$ref");
    const std::string target = schema["$ref"].is_string() ? schema["$ref"].get<std::string>() : "";
    if (!target.starts_with("#")) refuse(here, "only \"#/...\" within the schema is supported");
    if (std::find(followed_.begin(), followed_.end(), target) != followed_.end())
      refuse(here, "\"", printable(target), "\" is recursive, which is not supported");
    const Json* meant = find(target.substr(1));
    if (!meant) refuse(here, "\"", printable(target), "\" is not there");
    followed_.push_back(target);
    ExpressionPtr out = value(*meant, target);
    followed_.pop_back();
    return out;
  }

  const Json* find(const std::string& pointer) const {
    try {
      const Json::json_pointer path(pointer);
      return root_.contains(path) ? &root_.at(path) : nullptr;
    } catch (const Json::exception&) {
      return nullptr;
    }
  }

  const Json& root_;
  int depth_ = 0;
  std::vector<std::string> followed_ = {"#"};  ///< references that are being resolved
};

}  // namespace

ExpressionPtr schema_expression(const nlohmann::ordered_json& schema) {
  return Compiler(schema).value(schema, "#");
}

}  // namespace praetor::grammar
