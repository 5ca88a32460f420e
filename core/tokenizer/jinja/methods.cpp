#include <algorithm>
#include <array>

#include "core/base/error.h"
#include "core/tokenizer/jinja/ast.h"
#include "core/tokenizer/jinja/text.h"

namespace praetor::jinja {
namespace {

const std::string& text_at(const Arguments& a, size_t place) {
  if (place >= a.positional.size() || !a.positional[place].string())
    throw DataError("argument ", place + 1, " must be a text");
  return *a.positional[place].string();
}

std::optional<std::string> text_if(const Arguments& a, size_t place, std::string_view name) {
  const Value* value = a.get(place, name);
  if (!value || value->none()) return std::nullopt;
  if (!value->string()) throw DataError("\"", name, "\" must be a text, not ", value->type());
  return *value->string();
}

int64_t count_at(const Arguments& a, size_t place, std::string_view name) {
  const Value* value = a.get(place, name);
  if (!value) return -1;
  if (!value->is_integer()) throw DataError("\"", name, "\" must be an integer");
  return value->integer();
}

Value list_of(const std::vector<std::string>& parts) {
  return std::vector<Value>(parts.begin(), parts.end());
}

Value cut(const std::string& s, const Arguments& a) {
  const auto separator = text_if(a, 0, "sep");
  const int64_t most = count_at(a, 1, "maxsplit");
  return list_of(separator ? split(s, *separator, most) : split_words(s, most));
}

Value cut_from_right(const std::string& s, const Arguments& a) {
  const int64_t most = count_at(a, 1, "maxsplit");
  const auto separator = text_if(a, 0, "sep");
  if (!separator) throw DataError("\"rsplit\" without a separator is not supported");
  std::vector<std::string> parts = split(s, *separator, -1);
  while (most >= 0 && static_cast<int64_t>(parts.size()) > most + 1) {
    parts[1] = parts[0] + *separator + parts[1];
    parts.erase(parts.begin());
  }
  return list_of(parts);
}

Value lines_of(const std::string& s, const Arguments&) {
  std::vector<std::string> parts = split(replace(s, "\r\n", "\n", -1), "\n", -1);
  if (parts.back().empty()) parts.pop_back();
  return list_of(parts);
}

/// startswith and endswith: of one text, or of any of several.
template <typename Matches>
bool any_affix(const Arguments& a, Matches matches) {
  if (!a.positional.empty() && a.positional[0].list())
    return std::ranges::any_of(a.positional[0].list()->items,
                               [&](const Value& v) { return v.string() && matches(*v.string()); });
  return matches(text_at(a, 0));
}

int64_t times_in(const std::string& s, const std::string& part) {
  return static_cast<int64_t>(part.empty() ? characters(s).size() + 1
                                           : split(s, part, -1).size() - 1);
}

/// Place of `part` in characters, or -1.
int64_t place_of(const std::string& s, size_t byte) {
  return byte == std::string::npos
             ? -1
             : static_cast<int64_t>(characters(std::string_view(s).substr(0, byte)).size());
}

bool all_characters(const std::string& s, bool (*good)(char)) {
  return !s.empty() && std::ranges::all_of(s, good);
}

struct StringMethod {
  std::string_view name;
  Value (*call)(const std::string& s, const Arguments& a);
};

constexpr auto kStringMethods = std::to_array<StringMethod>({
    {"capitalize", [](const std::string& s, const Arguments&) -> Value { return capitalize(s); }},
    {"count",
     [](const std::string& s, const Arguments& a) -> Value { return times_in(s, text_at(a, 0)); }},
    {"endswith",
     [](const std::string& s, const Arguments& a) -> Value {
       return any_affix(a, [&](const std::string& part) { return s.ends_with(part); });
     }},
    {"find",
     [](const std::string& s, const Arguments& a) -> Value {
       return place_of(s, s.find(text_at(a, 0)));
     }},
    {"isalpha",
     [](const std::string& s, const Arguments&) -> Value {
       return all_characters(
           s, [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); });
     }},
    {"isdigit",
     [](const std::string& s, const Arguments&) -> Value {
       return all_characters(s, [](char c) { return c >= '0' && c <= '9'; });
     }},
    {"join",
     [](const std::string& s, const Arguments& a) -> Value {
       if (a.positional.empty()) throw DataError("\"join\" wants a list");
       std::string out;
       bool first = true;
       for (const Value& item : a.positional[0].elements()) {
         if (!item.string()) throw DataError("\"join\" takes texts, not ", item.type());
         out += (first ? "" : s) + *item.string();
         first = false;
       }
       return out;
     }},
    {"lower", [](const std::string& s, const Arguments&) -> Value { return lower(s); }},
    {"lstrip",
     [](const std::string& s, const Arguments& a) -> Value {
       return strip(s, text_if(a, 0, "chars"), Side::kLeft);
     }},
    {"removeprefix",
     [](const std::string& s, const Arguments& a) -> Value {
       return s.starts_with(text_at(a, 0)) ? s.substr(text_at(a, 0).size()) : s;
     }},
    {"removesuffix",
     [](const std::string& s, const Arguments& a) -> Value {
       return s.ends_with(text_at(a, 0)) ? s.substr(0, s.size() - text_at(a, 0).size()) : s;
     }},
    {"replace",
     [](const std::string& s, const Arguments& a) -> Value {
       return replace(s, text_at(a, 0), text_at(a, 1), count_at(a, 2, "count"));
     }},
    {"rfind",
     [](const std::string& s, const Arguments& a) -> Value {
       return place_of(s, s.rfind(text_at(a, 0)));
     }},
    {"rsplit", cut_from_right},
    {"rstrip",
     [](const std::string& s, const Arguments& a) -> Value {
       return strip(s, text_if(a, 0, "chars"), Side::kRight);
     }},
    {"split", cut},
    {"splitlines", lines_of},
    {"startswith",
     [](const std::string& s, const Arguments& a) -> Value {
       return any_affix(a, [&](const std::string& part) { return s.starts_with(part); });
     }},
    {"strip",
     [](const std::string& s, const Arguments& a) -> Value {
       return strip(s, text_if(a, 0, "chars"));
     }},
    {"title", [](const std::string& s, const Arguments&) -> Value { return title(s); }},
    {"upper", [](const std::string& s, const Arguments&) -> Value { return upper(s); }},
});

Value dict_method(const Value& value, const std::string& name) {
  const auto bound = [&](auto call) {
    return Function{name, [value, call](const Arguments& a) { return call(*value.dict(), a); }};
  };
  if (name == "get") {
    return bound([](const Dict& d, const Arguments& a) {
      const Value* found = d.find(text_at(a, 0));
      const Value* fallback = a.get(1, "default");
      return found ? *found : (fallback ? *fallback : Value());
    });
  }
  if (name == "items")
    return Function{name, [value](const Arguments& a) { return find_filter("items")(value, a); }};
  if (name == "keys")
    return bound([](const Dict& d, const Arguments&) { return Value(d).elements(); });
  if (name == "values") {
    return bound([](const Dict& d, const Arguments&) -> Value {
      std::vector<Value> out;
      for (const auto& item : d.items) out.push_back(item.second);
      return out;
    });
  }
  return Undefined{};
}

/// -1: not there.
int64_t place_in(int64_t index, size_t size) {
  const int64_t at = index < 0 ? index + static_cast<int64_t>(size) : index;
  return at >= 0 && at < static_cast<int64_t>(size) ? at : -1;
}

}  // namespace

Value find_method(const Value& value, const std::string& name) {
  if (value.dict() && !value.dict()->is_namespace) return dict_method(value, name);
  if (!value.string()) return Undefined{};
  const auto at = std::ranges::find(kStringMethods, name, &StringMethod::name);
  if (at == kStringMethods.end()) return Undefined{};
  return Function{
      name, [value, call = at->call](const Arguments& a) { return call(*value.string(), a); }};
}

Value item_of(const Value& value, const Value& index) {
  if (const Dict* dict = value.dict(); dict && index.string()) {
    if (const Value* found = dict->find(*index.string())) return *found;
    const Value method = find_method(value, *index.string());
    if (!method.undefined()) return method;
  } else if ((value.list() || value.string()) && index.is_integer()) {
    const std::vector<Value> all = value.elements();
    const int64_t at = place_in(index.integer(), all.size());
    if (at >= 0) return all[static_cast<size_t>(at)];
  } else if (value.string() && index.string()) {
    const Value method = find_method(value, *index.string());
    if (!method.undefined()) return method;
  } else if (value.undefined()) {
    throw DataError(value.as_undefined().what, " is undefined");
  }
  return Undefined{str("'", value.type(), " object' has no item ", index.repr(), ", which")};
}

Value attribute_of(const Value& value, const std::string& name) {
  const Value method = find_method(value, name);
  if (!method.undefined()) return method;
  if (const Dict* dict = value.dict()) {
    if (const Value* found = dict->find(name)) return *found;
  }
  return Undefined{str("'", value.type(), " object' has no attribute '", name, "', which")};
}

}  // namespace praetor::jinja
