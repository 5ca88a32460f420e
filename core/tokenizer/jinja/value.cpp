#include "core/tokenizer/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/tokenizer/unicode.h"

namespace praetor::jinja {
namespace {

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[400];
  const double size = std::abs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto end = std::to_chars(buffer,
                                 buffer + sizeof(buffer),
                                 value,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string out(buffer, end.ptr);
  if (plain && out.find('.') == std::string::npos) out += ".0";
  return out;
}

/// Python's repr of a string: single quotes unless it has one and no double quote.
std::string quoted(const std::string& text) {
  const bool both = text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char quote = both ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\\' || c == quote) {
      out += {'\\', c};
    } else if (byte < 0x20 || byte == 0x7F) {
      constexpr const char* kDigits = "0123456789abcdef";
      out += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    } else {
      out += c;
    }
  }
  return out + quote;
}

std::string json_string(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// `parts` between brackets, each on a line of its own when `indent` is not negative.
std::string bracketed(
    char open, const std::vector<std::string>& parts, char close, int64_t indent, int64_t depth) {
  if (parts.empty()) return {open, close};
  const auto line = [&](int64_t at) {
    return indent < 0 ? std::string() : str('\n', std::string(size_t(indent * at), ' '));
  };
  std::string out(1, open);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += indent < 0 ? ", " : ",";
    out += line(depth + 1) + parts[i];
  }
  return out + line(depth) + close;
}

std::string json_of(const Value& value, int64_t indent, int64_t depth) {
  if (value.none()) return "null";
  if (value.is_bool()) return value.truth() ? "true" : "false";
  if (value.is_number()) return value.text();
  if (const std::string* s = value.string()) return json_string(*s);
  std::vector<std::string> parts;
  if (const List* list = value.list()) {
    for (const Value& item : list->items) parts.push_back(json_of(item, indent, depth + 1));
    return bracketed('[', parts, ']', indent, depth);
  }
  if (const Dict* dict = value.dict(); dict && !dict->is_namespace) {
    for (const auto& [key, item] : dict->items)
      parts.push_back(json_string(key) + ": " + json_of(item, indent, depth + 1));
    return bracketed('{', parts, '}', indent, depth);
  }
  throw DataError("a value of type ", value.type(), " cannot be written as JSON");
}

}  // namespace

const Value* Dict::find(std::string_view key) const {
  const auto at = std::ranges::find(items, key, [](const auto& item) { return item.first; });
  return at == items.end() ? nullptr : &at->second;
}

void Dict::set(std::string_view key, Value value) {
  const auto at = std::ranges::find(items, key, [](const auto& item) { return item.first; });
  if (at == items.end()) {
    items.emplace_back(key, std::move(value));
  } else {
    at->second = std::move(value);
  }
}

const Value* Arguments::get(size_t place, std::string_view name) const {
  if (place < positional.size()) return &positional[place];
  const auto at = std::ranges::find(named, name, [](const auto& item) { return item.first; });
  return at == named.end() ? nullptr : &at->second;
}

Value Value::from_json(const nlohmann::ordered_json& json) {
  if (json.is_null()) return {};
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number()) return json.get<double>();
  if (json.is_string()) return json.get<std::string>();
  if (json.is_array()) {
    std::vector<Value> items;
    for (const auto& item : json) items.push_back(from_json(item));
    return items;
  }
  Dict dict;
  for (const auto& [key, item] : json.items()) dict.set(key, from_json(item));
  return dict;
}

List* Value::list() const {
  const auto* p = std::get_if<std::shared_ptr<List>>(&data_);
  return p ? p->get() : nullptr;
}
Dict* Value::dict() const {
  const auto* p = std::get_if<std::shared_ptr<Dict>>(&data_);
  return p ? p->get() : nullptr;
}
const Function* Value::function() const {
  const auto* p = std::get_if<std::shared_ptr<Function>>(&data_);
  return p ? p->get() : nullptr;
}
int64_t Value::integer() const {
  if (const bool* b = std::get_if<bool>(&data_)) return *b ? 1 : 0;
  return std::get<int64_t>(data_);
}
double Value::number() const {
  if (const double* d = std::get_if<double>(&data_)) return *d;
  return static_cast<double>(integer());
}

bool Value::truth() const {
  if (undefined() || none()) return false;
  if (is_number()) return number() != 0;
  if (const std::string* s = string()) return !s->empty();
  if (const List* l = list()) return !l->items.empty();
  if (const Dict* d = dict()) return d->is_namespace || !d->items.empty();
  return true;
}

std::string Value::text() const {
  if (undefined()) return "";
  if (const std::string* s = string()) return *s;
  return repr();
}

std::string Value::repr() const {
  if (undefined()) return "Undefined";
  if (none()) return "None";
  if (is_bool()) return truth() ? "True" : "False";
  if (is_integer()) return std::to_string(integer());
  if (is_number()) return number_text(number());
  if (const std::string* s = string()) return quoted(*s);
  std::vector<std::string> parts;
  if (const List* l = list()) {
    for (const Value& item : l->items) parts.push_back(item.repr());
    if (l->tuple && parts.size() == 1) return "(" + parts[0] + ",)";
    return bracketed(l->tuple ? '(' : '[', parts, l->tuple ? ')' : ']', -1, 0);
  }
  if (const Dict* d = dict()) {
    if (d->is_namespace) return "<Namespace>";  // it may hold itself
    for (const auto& [key, item] : d->items) parts.push_back(quoted(key) + ": " + item.repr());
    return bracketed('{', parts, '}', -1, 0);
  }
  return "<function " + function()->name + ">";
}

std::string Value::json(int64_t indent) const {
  return json_of(*this, indent, 0);
}

std::string Value::type() const {
  if (undefined()) return "Undefined";
  if (none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_integer()) return "int";
  if (is_number()) return "float";
  if (string()) return "str";
  if (const List* l = list()) return l->tuple ? "tuple" : "list";
  if (const Dict* d = dict()) return d->is_namespace ? "namespace" : "dict";
  return "function";
}

std::vector<Value> Value::elements() const {
  if (undefined()) return {};
  if (const List* l = list()) return l->items;
  std::vector<Value> out;
  if (const std::string* s = string()) {
    for (std::string& c : characters(*s)) out.emplace_back(std::move(c));
    return out;
  }
  if (const Dict* d = dict(); d && !d->is_namespace) {
    for (const auto& [key, item] : d->items) out.emplace_back(key);
    return out;
  }
  throw DataError("'", type(), "' object is not iterable");
}

bool Value::operator==(const Value& other) const {
  if (is_number() && other.is_number()) {
    return is_integer() && other.is_integer() ? integer() == other.integer()
                                              : number() == other.number();
  }
  if (string() && other.string()) return *string() == *other.string();
  if (list() && other.list())
    return list()->tuple == other.list()->tuple && list()->items == other.list()->items;
  if (dict() && other.dict()) {
    if (dict()->is_namespace || other.dict()->is_namespace) return dict() == other.dict();
    const auto in_other = [&](const auto& item) {
      const Value* found = other.dict()->find(item.first);
      return found && *found == item.second;
    };
    return dict()->items.size() == other.dict()->items.size() &&
           std::ranges::all_of(dict()->items, in_other);
  }
  if (function() || other.function()) return function() == other.function();
  return (none() && other.none()) || (undefined() && other.undefined());
}

bool Value::less(const Value& other) const {
  if (is_number() && other.is_number()) {
    return is_integer() && other.is_integer() ? integer() < other.integer()
                                              : number() < other.number();
  }
  if (string() && other.string()) return *string() < *other.string();
  if (list() && other.list()) {
    return std::ranges::lexicographical_compare(
        list()->items, other.list()->items, [](const Value& a, const Value& b) {
          return a.less(b);
        });
  }
  throw DataError("'<' not supported between instances of '", type(), "' and '", other.type(), "'");
}

bool Value::contains(const Value& element) const {
  if (const std::string* s = string()) {
    if (!element.string())
      throw DataError("'in <string>' requires string as left operand, not ", element.type());
    return s->find(*element.string()) != std::string::npos;
  }
  if (const Dict* d = dict(); d && !d->is_namespace)
    return element.string() && d->find(*element.string());
  const std::vector<Value> all = elements();
  return std::ranges::find(all, element) != all.end();
}

std::vector<std::string> characters(std::string_view text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    unicode::next(text, at);
    out.emplace_back(text.substr(begin, at - begin));
  }
  return out;
}

bool is_space(std::string_view character) {
  size_t at = 0;
  const char32_t code = unicode::next(character, at);
  return unicode::is_white_space(code) || (code >= 0x1C && code <= 0x1F);
}

}  // namespace praetor::jinja
