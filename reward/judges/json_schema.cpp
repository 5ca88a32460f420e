#include "reward/judges/json_schema.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "core/base/bounded_regex.h"
#include "core/base/error.h"
#include "core/base/text.h"
#include "reward/judges/utf8.h"

namespace praetor {

using nlohmann::json;

struct JsonSchema::Rules {
  bool nothing = false;  ///< the schema `false`
  std::vector<std::string> types;
  std::optional<std::vector<json>> one_of;  ///< enum, const
  std::map<std::string, std::unique_ptr<const Rules>> properties;
  std::vector<std::string> required;
  std::unique_ptr<const Rules> other_properties;
  std::unique_ptr<const Rules> items;
  std::optional<int64_t> min_items, max_items, min_length, max_length;
  std::optional<std::pair<std::string, BoundedRegex>> pattern;
  std::optional<double> minimum, maximum, above, below;
};

namespace {

using Rules = JsonSchema::Rules;

constexpr int kDeepest = 64;
constexpr auto kTypes = std::to_array<std::string_view>(
    {"array", "boolean", "integer", "null", "number", "object", "string"});

std::string shown(const json& value) {
  // Deep values are not written out: that recurses.
  if (value.is_structured()) return str("the ", value.type_name());
  return printable(value.dump(-1, ' ', false, json::error_handler_t::replace), 40);
}

// ---- reading a schema ----

class SchemaReader {
 public:
  static std::unique_ptr<const Rules> read(const json& schema, const std::string& path, int depth) {
    if (depth > kDeepest) throw DataError("schema ", path, ": more than ", kDeepest, " levels");
    SchemaReader reader(schema, path, depth);
    reader.rules_ = std::make_unique<Rules>();
    if (schema.is_boolean()) {
      reader.rules_->nothing = !schema.get<bool>();
    } else if (schema.is_object()) {
      for (const auto& [keyword, value] : schema.items()) reader.keyword(keyword, value);
    } else {
      reader.fail(str(schema.type_name(), ", but an object is wanted"));
    }
    return std::move(reader.rules_);
  }

 private:
  SchemaReader(const json& schema, const std::string& path, int depth)
      : schema_(schema), path_(path), depth_(depth) {}

  [[noreturn]] void fail(const std::string& message) const {
    throw DataError("schema ", path_.empty() ? "/" : path_, ": ", message);
  }
  [[noreturn]] void wrong(const std::string& keyword, const char* wanted) const {
    fail(str(keyword, ": ", shown(schema_.at(keyword)), " is not ", wanted));
  }

  int64_t count(const std::string& keyword, const json& value) const {
    const bool whole = value.is_number_integer() && value >= 0 && value <= int64_t{1} << 53;
    if (!whole) wrong(keyword, "a whole number >= 0");
    return value.get<int64_t>();
  }

  double number(const std::string& keyword, const json& value) const {
    if (!value.is_number()) wrong(keyword, "a number");
    return value.get<double>();
  }

  std::vector<std::string> texts(const std::string& keyword, const json& value) const {
    const auto text = [](const json& item) { return item.is_string(); };
    if (!value.is_array() || !std::all_of(value.begin(), value.end(), text))
      wrong(keyword, "a list of texts");
    return value.get<std::vector<std::string>>();
  }

  std::unique_ptr<const Rules> inner(const std::string& step, const json& value) const {
    return read(value, str(path_, "/", printable(step)), depth_ + 1);
  }

  void types(const json& value) {
    rules_->types =
        value.is_string() ? std::vector{value.get<std::string>()} : texts("type", value);
    for (const std::string& type : rules_->types) {
      if (std::ranges::find(kTypes, std::string_view(type)) == kTypes.end())
        fail(str("type: \"", printable(type), "\" is no type of JSON Schema"));
    }
  }

  void properties(const json& value) {
    if (!value.is_object()) wrong("properties", "an object");
    for (const auto& [name, schema] : value.items())
      rules_->properties.emplace(name, inner("properties/" + name, schema));
  }

  void pattern(const json& value) {
    if (!value.is_string()) wrong("pattern", "a text");
    const auto text = value.get<std::string>();
    try {
      rules_->pattern.emplace(text, BoundedRegex(text));
    } catch (const InvalidArgument& failure) {
      fail(str("pattern: ", failure.what()));
    }
  }

  void values(const std::string& keyword, const json& value) {
    if (keyword == "enum" && !value.is_array()) wrong(keyword, "a list");
    auto given = keyword == "enum" ? value.get<std::vector<json>>() : std::vector{value};
    if (rules_->one_of) fail("enum and const together; keep one of the two");
    rules_->one_of = std::move(given);
  }

  void keyword(const std::string& name, const json& value) {
    if (name == "type") return types(value);
    if (name == "enum" || name == "const") return values(name, value);
    if (name == "properties") return properties(value);
    if (name == "pattern") return pattern(value);
    if (name == "required") {
      rules_->required = texts(name, value);
    } else if (name == "additionalProperties") {
      rules_->other_properties = inner(name, value);
    } else if (name == "items") {
      rules_->items = inner(name, value);
    } else if (name == "minItems") {
      rules_->min_items = count(name, value);
    } else if (name == "maxItems") {
      rules_->max_items = count(name, value);
    } else if (name == "minLength") {
      rules_->min_length = count(name, value);
    } else if (name == "maxLength") {
      rules_->max_length = count(name, value);
    } else if (name == "minimum") {
      rules_->minimum = number(name, value);
    } else if (name == "maximum") {
      rules_->maximum = number(name, value);
    } else if (name == "exclusiveMinimum") {
      rules_->above = number(name, value);
    } else if (name == "exclusiveMaximum") {
      rules_->below = number(name, value);
    } else {
      const std::vector<std::string> silent = {
          "$schema", "$id", "$comment", "title", "description", "default", "examples"};
      if (std::ranges::find(silent, name) == silent.end())
        fail(str("unknown keyword \"", printable(name), "\""));
    }
  }

  const json& schema_;
  const std::string& path_;
  int depth_;
  std::unique_ptr<Rules> rules_;
};

// ---- judging a value ----

bool is_of_type(const json& value, const std::string& type) {
  if (type == "number") return value.is_number();
  if (type == "integer") {
    if (value.is_number_float()) return value.get<double>() == std::trunc(value.get<double>());
    return value.is_number_integer();
  }
  return type == value.type_name();
}

/// Walks a value beside its schema; goes no deeper than the schema does.
class Inspection {
 public:
  explicit Inspection(const Deadline& deadline) : deadline_(deadline) {}

  std::string violation(const Rules& rules, const json& value, const std::string& path) const {
    deadline_.check();
    std::string message = own(rules, value);
    if (!message.empty()) return str(path.empty() ? "/" : path, ": ", message);
    if (value.is_object()) return of_properties(rules, value, path);
    if (value.is_array() && rules.items) {
      for (size_t i = 0; i < value.size(); ++i) {
        message = violation(*rules.items, value[i], str(path, "/", i));
        if (!message.empty()) return message;
      }
    }
    return "";
  }

 private:
  std::string own(const Rules& rules, const json& value) const {
    if (rules.nothing) return "is not allowed";
    const auto has_type = [&](const std::string& type) { return is_of_type(value, type); };
    if (!rules.types.empty() && std::ranges::none_of(rules.types, has_type))
      return str(shown(value), " is not of type ", join(rules.types, " or "));
    if (rules.one_of && std::ranges::find(*rules.one_of, value) == rules.one_of->end())
      return str(shown(value), " is none of the values allowed");
    if (value.is_string()) return of_text(rules, value.get_ref<const std::string&>());
    if (value.is_number()) return of_number(rules, value.get<double>(), value);
    if (value.is_array()) return of_count(rules, static_cast<int64_t>(value.size()));
    return "";
  }

  std::string of_text(const Rules& rules, const std::string& text) const {
    const int64_t length = count_characters(text);
    if (rules.min_length && length < *rules.min_length)
      return str(length, " characters, fewer than ", *rules.min_length);
    if (rules.max_length && length > *rules.max_length)
      return str(length, " characters, more than ", *rules.max_length);
    if (rules.pattern && !rules.pattern->second.search(text, deadline_))
      return str("\"", printable(text, 40), "\" does not match ", printable(rules.pattern->first));
    return "";
  }

  static std::string of_number(const Rules& rules, double number, const json& value) {
    if (rules.minimum && number < *rules.minimum)
      return str(shown(value), " is not >= ", *rules.minimum);
    if (rules.maximum && number > *rules.maximum)
      return str(shown(value), " is not <= ", *rules.maximum);
    if (rules.above && number <= *rules.above) return str(shown(value), " is not > ", *rules.above);
    if (rules.below && number >= *rules.below) return str(shown(value), " is not < ", *rules.below);
    return "";
  }

  static std::string of_count(const Rules& rules, int64_t items) {
    if (rules.min_items && items < *rules.min_items)
      return str(items, " items, fewer than ", *rules.min_items);
    if (rules.max_items && items > *rules.max_items)
      return str(items, " items, more than ", *rules.max_items);
    return "";
  }

  std::string of_properties(const Rules& rules, const json& value, const std::string& path) const {
    for (const std::string& name : rules.required) {
      if (!value.contains(name))
        return str(path.empty() ? "/" : path, ": \"", printable(name), "\" is missing");
    }
    for (const auto& [name, inner] : value.items()) {
      const auto known = rules.properties.find(name);
      const Rules* schema =
          known != rules.properties.end() ? known->second.get() : rules.other_properties.get();
      if (schema == nullptr) continue;
      std::string message = violation(*schema, inner, str(path, "/", printable(name)));
      if (!message.empty()) return message;
    }
    return "";
  }

  const Deadline& deadline_;
};

}  // namespace

JsonSchema::JsonSchema(const json& schema) : rules_(SchemaReader::read(schema, "", 0)) {}
JsonSchema::~JsonSchema() = default;
JsonSchema::JsonSchema(JsonSchema&&) noexcept = default;
JsonSchema& JsonSchema::operator=(JsonSchema&&) noexcept = default;

std::string JsonSchema::violation(const json& value, const Deadline& deadline) const {
  return Inspection(deadline).violation(*rules_, value, "");
}

}  // namespace praetor
