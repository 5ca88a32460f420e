#include "rollout/grammar/schema_parts.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "core/base/text.h"

namespace praetor::grammar {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMostParts = 256;
constexpr int kDeepestSchema = 64;
constexpr int64_t kMostTaken = 20'000;
constexpr int kDeepestCheck = 8;  // of properties that tell the choices of oneOf apart

std::vector<std::string> types_of(const Json& schema) {
  if (!schema.contains("type")) return {};
  const Json& type = schema["type"];
  std::vector<std::string> out;
  for (const Json& name : type.is_array() ? type : Json::array({type}))
    if (name.is_string()) out.push_back(name.get<std::string>());
  return out;
}

/// Types of which a value may be, an integer being a number too. Empty: any.
std::vector<std::string> wide_types_of(const Json& schema) {
  std::vector<std::string> out = types_of(schema);
  std::ranges::replace(out, "integer", "number");
  return out;
}

/// The values of enum or const. Nothing: the schema lists none.
std::optional<Json> values_of(const Json& schema) {
  if (schema.contains("const")) return Json::array({schema["const"]});
  if (schema.contains("enum") && schema["enum"].is_array()) return schema["enum"];
  return std::nullopt;
}

bool is_listed(const Json& values, const Json& value) {
  return std::ranges::find(values, value) != values.end();
}

/// Two types as one list. Nothing: no value is of both.
std::optional<Json> common_types(const Json& a, const Json& b) {
  const auto list = [](const Json& type) { return type.is_array() ? type : Json::array({type}); };
  Json out = Json::array();
  for (const Json& one : list(a)) {
    for (const Json& other : list(b)) {
      const bool narrower = one == "number" && other == "integer";
      const bool wider = one == "integer" && other == "number";
      if ((one == other || narrower || wider) && !is_listed(out, narrower ? other : one))
        out.push_back(narrower ? other : one);
    }
  }
  if (out.empty()) return std::nullopt;
  return out.size() == 1 ? out[0] : out;
}

/// Holds two schemas without choices together.
class Merge {
 public:
  Merge(const Json& other, const std::string& at) : other_(other), at_(at) {}

  /// Nothing: no value meets both.
  std::optional<Json> into(Json own) {
    check_items(own);
    if (!hold_properties(own)) return std::nullopt;
    for (const auto& [key, value] : other_.items()) {
      if (is_silent(key) || is_of_objects(key)) continue;
      if (!own.contains(key)) {
        if (!add(own, key, value)) return std::nullopt;
      } else if (own[key] != value && !hold(own, key, value)) {
        return std::nullopt;
      }
    }
    return own;
  }

 private:
  static bool is_of_objects(const std::string& key) {
    return key == "properties" || key == "required" || key == "additionalProperties";
  }

  /// A keyword that the schema does not have yet.
  static bool add(Json& own, const std::string& key, const Json& value) {
    const bool lists = key == "const" || key == "enum";
    if (!lists || !values_of(own)) {
      own[key] = value;
      return true;
    }
    return hold_values(own, key == "const" ? Json::array({value}) : value);
  }

  static bool hold_values(Json& own, const Json& values) {
    Json kept = Json::array();
    for (const Json& value : values_of(own).value_or(Json::array()))
      if (is_listed(values, value)) kept.push_back(value);
    own.erase("const");
    own["enum"] = kept;
    return !kept.empty();
  }

  /// A keyword that both have, with values that differ.
  bool hold(Json& own, const std::string& key, const Json& value) const {
    static const std::vector<std::string> kFloors = {
        "minimum", "exclusiveMinimum", "minLength", "minItems"};
    static const std::vector<std::string> kCeilings = {
        "maximum", "exclusiveMaximum", "maxLength", "maxItems"};
    const bool numbers = own[key].is_number() && value.is_number();
    if (key == "type") {
      const std::optional<Json> common = common_types(own[key], value);
      if (common) own[key] = *common;
      return common.has_value();
    }
    if (key == "const") return false;
    if (key == "enum" && value.is_array()) return hold_values(own, value);
    if (key == "items") {
      own[key] = {{"allOf", {own[key], value}}};
      return true;
    }
    if (numbers && std::ranges::find(kFloors, key) != kFloors.end()) {
      own[key] = std::max(own[key], value);
      return true;
    }
    if (numbers && std::ranges::find(kCeilings, key) != kCeilings.end()) {
      own[key] = std::min(own[key], value);
      return true;
    }
    if (key == "multipleOf" && own[key].is_number_integer() && value.is_number_integer() &&
        own[key] > 0 && value > 0) {
      own[key] = std::lcm(own[key].get<int64_t>(), value.get<int64_t>());
      return true;
    }
    refuse_schema(at_, "two values of ", key, " cannot be held together");
  }

  void check_items(const Json& own) const {
    const auto has = [](const Json& schema, const char* key) { return schema.contains(key); };
    const bool clash =
        (has(own, "prefixItems") && (has(other_, "items") || has(other_, "prefixItems"))) ||
        (has(other_, "prefixItems") && has(own, "items"));
    if (clash) refuse_schema(at_, "prefixItems beside another schema of items is not supported");
  }

  /// Properties of both, each of them held to both; false where one that is required is barred.
  bool hold_properties(Json& own) const {
    Json all = Json::object();
    const Json empty = Json::object();
    const Json& a = own.contains("properties") ? own["properties"] : empty;
    const Json& b = other_.contains("properties") ? other_["properties"] : empty;
    if (!a.is_object() || !b.is_object()) return true;  // told where the schema is read
    for (const auto& [name, schema] : a.items())
      hold_property(all, name, schema, b.contains(name) ? &b[name] : others_of(other_));
    for (const auto& [name, schema] : b.items())
      if (!a.contains(name)) hold_property(all, name, schema, others_of(own));
    Json required = Json::array();
    for (const Json* of : {static_cast<const Json*>(&own), &other_}) {
      if (!of->contains("required")) continue;
      if (!(*of)["required"].is_array()) return true;
      for (const Json& name : (*of)["required"]) {
        if (is_listed(required, name)) continue;
        required.push_back(name);
        const bool named = name.is_string() && (a.contains(name.get<std::string>()) ||
                                                b.contains(name.get<std::string>()));
        if (named && !all.contains(name.get<std::string>())) return false;
      }
    }
    hold_others(own);
    if (own.contains("properties") || other_.contains("properties")) own["properties"] = all;
    if (!required.empty()) own["required"] = required;
    return true;
  }

  /// What a schema says of properties that it does not name. Null: nothing.
  static const Json* others_of(const Json& schema) {
    return schema.contains("additionalProperties") ? &schema["additionalProperties"] : nullptr;
  }

  static void hold_property(Json& all,
                            const std::string& name,
                            const Json& own,
                            const Json* other) {
    if (!other || (other->is_boolean() && other->get<bool>())) {
      all[name] = own;
    } else if (!other->is_boolean()) {
      all[name] = {{"allOf", {own, *other}}};
    }
  }

  void hold_others(Json& own) const {
    if (!other_.contains("additionalProperties")) return;
    const Json& value = other_["additionalProperties"];
    if (!own.contains("additionalProperties") || own["additionalProperties"] == true) {
      own["additionalProperties"] = value;
    } else if (value == false) {
      own["additionalProperties"] = false;
    } else if (value != true && own["additionalProperties"] != value &&
               own["additionalProperties"] != false) {
      own["additionalProperties"] = {{"allOf", {own["additionalProperties"], value}}};
    }
  }

  const Json& other_;
  const std::string& at_;
};

std::optional<Json> held_together(const Json& a, const Json& b, const std::string& at) {
  if (a == false || b == false) return std::nullopt;
  if (a == true) return b;
  if (b == true) return a;
  if (!a.is_object() || !b.is_object()) refuse_schema(at, "objects (or true) are wanted");
  return Merge(b, at).into(a);
}

/// Every choice of `a` held together with every one of `b`.
std::vector<SchemaPart> together(const std::vector<SchemaPart>& a,
                                 const std::vector<SchemaPart>& b,
                                 const std::string& at) {
  if (a.size() * b.size() > kMostParts)
    refuse_schema(at, "more than ", kMostParts, " ways to meet it all");
  std::vector<SchemaPart> out;
  for (const SchemaPart& one : a) {
    for (const SchemaPart& other : b) {
      const std::optional<Json> schema = held_together(one.schema, other.schema, at);
      if (!schema) continue;
      out.push_back({*schema, at, one.followed, std::max(one.depth, other.depth)});
      out.back().followed.insert(
          out.back().followed.end(), other.followed.begin(), other.followed.end());
    }
  }
  return out;
}

/// The ends of a range that a schema's keywords tie down; nothing where they do not.
struct Ends {
  std::optional<double> low, high;
  bool low_open = false, high_open = false;

  bool below(const Ends& other) const {
    return high && other.low &&
           (*high < *other.low || (*high == *other.low && (high_open || other.low_open)));
  }
};

Ends ends_of(const Json& schema, const char* low, const char* high, bool numbers) {
  Ends out;
  const auto number = [&](const char* key) -> std::optional<double> {
    if (!schema.contains(key) || !schema[key].is_number()) return std::nullopt;
    return schema[key].get<double>();
  };
  out.low = number(low);
  out.high = number(high);
  if (!numbers) return out;
  const auto above = number("exclusiveMinimum"), under = number("exclusiveMaximum");
  if (above && (!out.low || *above >= *out.low)) {
    out.low = above;
    out.low_open = true;
  }
  if (under && (!out.high || *under <= *out.high)) {
    out.high = under;
    out.high_open = true;
  }
  return out;
}

bool ranges_apart(const Json& a, const Json& b, const char* low, const char* high, bool numbers) {
  const Ends x = ends_of(a, low, high, numbers), y = ends_of(b, low, high, numbers);
  return x.below(y) || y.below(x);
}

bool fits_no_type(const Json& values, const std::vector<std::string>& types) {
  return !types.empty() && std::ranges::none_of(values, [&](const Json& value) {
    return std::ranges::any_of(types,
                               [&](const std::string& type) { return has_type(value, type); });
  });
}

}  // namespace

std::string pointer_below(const std::string& at, const std::string& key) {
  std::string out = at + "/";
  for (const char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

const std::vector<std::string>& silent_keywords() {
  static const std::vector<std::string> kSilent = {"title",
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
                                                   "definitions"};
  return kSilent;
}

bool is_silent(std::string_view keyword) {
  return std::ranges::find(silent_keywords(), keyword) != silent_keywords().end();
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

SchemaPart SchemaParts::target(const SchemaPart& reference) const {
  const std::string here = pointer_below(reference.at, "$ref");
  const Json& ref = reference.schema["$ref"];
  const std::string target = ref.is_string() ? ref.get<std::string>() : "";
  if (!target.starts_with("#"))
    refuse_schema(here, "only \"#/...\" within the schema is supported");
  if (target == "#" || std::ranges::find(reference.followed, target) != reference.followed.end())
    refuse_schema(here, "\"", printable(target), "\" is recursive, which is not supported");
  SchemaPart out{{}, target, reference.followed, reference.depth + 1};
  out.followed.push_back(target);
  try {
    const Json::json_pointer path(target.substr(1));
    if (root_.contains(path)) {
      out.schema = root_.at(path);
      return out;
    }
  } catch (const Json::exception&) {  // no pointer at all
  }
  refuse_schema(here, "\"", printable(target), "\" is not there");
}

std::vector<SchemaPart> SchemaParts::listed(const SchemaPart& whole, const char* keyword) const {
  const std::string here = pointer_below(whole.at, keyword);
  const Json& list = whole.schema[keyword];
  if (!list.is_array() || list.empty()) refuse_schema(here, "a list of schemas is wanted");
  std::vector<SchemaPart> out;
  for (size_t i = 0; i < list.size(); ++i)
    out.push_back({list[i], here + "/" + std::to_string(i), whole.followed, whole.depth + 1});
  return out;
}

std::vector<SchemaPart> SchemaParts::of(const SchemaPart& whole) const {
  if (whole.depth > kDeepestSchema)
    refuse_schema(whole.at, "schemas are nested more than ", kDeepestSchema, " deep");
  if (++taken_ > kMostTaken) {
    refuse_schema(
        whole.at, "references and choices multiply to more than ", kMostTaken, " schemas");
  }
  const Json& schema = whole.schema;
  static const std::vector<std::string> kCombining = {"allOf", "anyOf", "oneOf", "$ref"};
  const auto combines = [](const std::string& key) {
    return std::ranges::find(kCombining, key) != kCombining.end();
  };
  if (!schema.is_object() ||
      std::ranges::none_of(kCombining, [&](const auto& key) { return schema.contains(key); })) {
    return {whole};
  }
  std::optional<std::vector<SchemaPart>> out;
  const auto hold = [&](const std::vector<SchemaPart>& choices) {
    out = out ? together(*out, choices, whole.at) : choices;
  };
  SchemaPart rest{Json::object(), whole.at, whole.followed, whole.depth};
  for (const auto& [key, value] : schema.items())
    if (!combines(key) && !is_silent(key)) rest.schema[key] = value;
  if (!rest.schema.empty()) hold({rest});
  if (schema.contains("$ref")) hold(of(target(whole)));
  if (schema.contains("allOf")) {
    for (const SchemaPart& part : listed(whole, "allOf")) hold(of(part));
  }
  for (const char* keyword : {"anyOf", "oneOf"}) {
    if (!schema.contains(keyword)) continue;
    const std::vector<SchemaPart> list = listed(whole, keyword);
    std::vector<SchemaPart> choices;
    for (size_t i = 0; i < list.size(); ++i) {
      for (size_t j = 0; j < i && std::string_view(keyword) == "oneOf"; ++j) {
        if (apart(list[j], list[i], kDeepestCheck)) continue;
        refuse_schema(list[i].at,
                      "a value may meet this and ",
                      list[j].at,
                      " at once, as far as types, const, enum, bounds and required properties "
                      "tell; where that does not matter, write anyOf");
      }
      const std::vector<SchemaPart> own = of(list[i]);
      choices.insert(choices.end(), own.begin(), own.end());
    }
    hold(choices);
  }
  if (!out) return {{true, whole.at, whole.followed, whole.depth}};
  if (out->empty()) refuse_schema(whole.at, "no value meets all that is asked for");
  return *out;
}

bool SchemaParts::properties_apart(const SchemaPart& a, const SchemaPart& b, int depth) const {
  const auto member = [](const SchemaPart& of, const std::string& name) -> const Json* {
    if (!of.schema.contains("properties") || !of.schema["properties"].is_object()) return nullptr;
    const Json& all = of.schema["properties"];
    return all.contains(name) ? &all[name] : nullptr;
  };
  const auto bars = [&](const SchemaPart& of, const std::string& name) {
    return !member(of, name) && of.schema.contains("additionalProperties") &&
           of.schema["additionalProperties"] == false;
  };
  for (const SchemaPart* one : {&a, &b}) {
    const SchemaPart& other = one == &a ? b : a;
    if (!one->schema.contains("required") || !one->schema["required"].is_array()) continue;
    for (const Json& name : one->schema["required"]) {
      if (!name.is_string()) continue;
      const auto text = name.get<std::string>();
      if (bars(other, text)) return true;
      const Json* own = member(*one, text);
      const Json* theirs = member(other, text);
      if (!own || !theirs || depth == 0) continue;
      const auto below = [&](const SchemaPart& of, const Json& schema) {
        return SchemaPart{
            schema, pointer_below(of.at + "/properties", text), of.followed, of.depth};
      };
      if (apart(below(*one, *own), below(other, *theirs), depth - 1)) return true;
    }
  }
  return false;
}

bool SchemaParts::apart(const SchemaPart& a, const SchemaPart& b, int depth) const {
  const std::vector<SchemaPart> ways_a = of(a), ways_b = of(b);
  return std::ranges::all_of(ways_a, [&](const SchemaPart& x) {
    return std::ranges::all_of(ways_b, [&](const SchemaPart& y) {
      if (!x.schema.is_object() || !y.schema.is_object())
        return x.schema == false || y.schema == false;
      const auto own = values_of(x.schema), theirs = values_of(y.schema);
      if (own && theirs) {
        return std::ranges::none_of(*own,
                                    [&](const Json& value) { return is_listed(*theirs, value); });
      }
      const auto types = wide_types_of(x.schema), others = wide_types_of(y.schema);
      if (own && fits_no_type(*own, others)) return true;
      if (theirs && fits_no_type(*theirs, types)) return true;
      if (types.empty() || others.empty()) return false;
      std::vector<std::string> common;
      for (const std::string& type : types)
        if (std::ranges::find(others, type) != others.end()) common.push_back(type);
      return std::ranges::all_of(common, [&](const std::string& type) {
        if (type == "number") return ranges_apart(x.schema, y.schema, "minimum", "maximum", true);
        if (type == "string")
          return ranges_apart(x.schema, y.schema, "minLength", "maxLength", false);
        if (type == "array") return ranges_apart(x.schema, y.schema, "minItems", "maxItems", false);
        return type == "object" && properties_apart(x, y, depth);
      });
    });
  });
}

}  // namespace praetor::grammar
