#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "core/base/error.h"
#include "core/tokenizer/jinja/ast.h"
#include "core/tokenizer/jinja/text.h"

namespace praetor::jinja {
namespace {

const Value& wanted(const Arguments& a, size_t place, std::string_view name) {
  const Value* value = a.get(place, name);
  if (!value) throw DataError("the argument \"", name, "\" is missing");
  return *value;
}

int64_t integer_or(const Arguments& a, size_t place, std::string_view name, int64_t fallback) {
  const Value* value = a.get(place, name);
  if (!value || value->none()) return fallback;
  if (!value->is_integer()) throw DataError("\"", name, "\" is an integer, not ", value->type());
  return value->integer();
}

bool flag(const Arguments& a, size_t place, std::string_view name, bool fallback) {
  const Value* value = a.get(place, name);
  return value ? value->truth() : fallback;
}

std::string text_or(const Arguments& a, size_t place, std::string_view name, std::string fallback) {
  const Value* value = a.get(place, name);
  return value ? value->text() : std::move(fallback);
}

int64_t length(const Value& v, const Arguments&) {
  if (v.undefined()) return 0;
  if (v.string() || v.list() || v.dict()) return static_cast<int64_t>(v.elements().size());
  throw DataError("object of type '", v.type(), "' has no len()");
}

/// "a.b.0" of an item, as map(attribute=...) and its kin take it.
Value path_of(Value value, const Value& path) {
  if (path.is_integer()) return item_of(value, path);
  for (const std::string& part : split(path.text(), ".", -1)) {
    int64_t index = 0;
    const auto end = part.data() + part.size();
    const auto [stop, error] = std::from_chars(part.data(), end, index);
    const bool number = error == std::errc() && stop == end;
    value = number ? item_of(value, index) : item_of(value, part);
  }
  return value;
}

Arguments without_first(const Arguments& a, size_t count) {
  Arguments out = a;
  out.positional.erase(
      out.positional.begin(),
      out.positional.begin() + static_cast<std::ptrdiff_t>(std::min(count, out.positional.size())));
  return out;
}

/// What select and its three kin keep: items, or their attribute, that pass the test (or are true).
Value selected(const Value& v, const Arguments& a, bool keep, bool attribute) {
  const size_t first = attribute ? 1 : 0;
  const Value path = attribute ? wanted(a, 0, "attribute") : Value();
  TestFunction test = nullptr;
  if (a.positional.size() > first) {
    test = find_test(a.positional[first].text());
    if (!test) throw DataError("the test \"", a.positional[first].text(), "\" is not known");
  }
  const Arguments rest = without_first(a, first + 1);
  std::vector<Value> out;
  for (const Value& item : v.elements()) {
    const Value seen = attribute ? path_of(item, path) : item;
    if ((test ? test(seen, rest) : seen.truth()) == keep) out.push_back(item);
  }
  return out;
}

Value map(const Value& v, const Arguments& a) {
  std::vector<Value> out;
  if (a.positional.empty()) {
    const Value& path = wanted(a, 1, "attribute");
    const Value* fallback = a.get(1, "default");
    for (const Value& item : v.elements()) {
      Value found = path_of(item, path);
      out.push_back(found.undefined() && fallback ? *fallback : found);
    }
    return out;
  }
  const std::string name = a.positional[0].text();
  const FilterFunction filter = find_filter(name);
  if (!filter) throw DataError("the filter \"", name, "\" is not known");
  const Arguments rest = without_first(a, 1);
  for (const Value& item : v.elements()) out.push_back(filter(item, rest));
  return out;
}

/// What sorting and its kin compare: an attribute where one is named, texts without their case.
Value key_of(const Value& item, const Value* attribute, bool case_matters) {
  Value key = attribute && !attribute->none() ? path_of(item, *attribute) : item;
  return !case_matters && key.string() ? Value(lower(*key.string())) : key;
}

Value sorted(const Value& v, const Arguments& a) {
  std::vector<Value> out = v.elements();
  const bool matters = flag(a, 1, "case_sensitive", false);
  const Value* attribute = a.get(2, "attribute");
  std::ranges::stable_sort(out, [&](const Value& x, const Value& y) {
    return key_of(x, attribute, matters).less(key_of(y, attribute, matters));
  });
  if (flag(a, 0, "reverse", false)) std::ranges::reverse(out);
  return out;
}

Value unique(const Value& v, const Arguments& a) {
  std::vector<Value> out, seen;
  for (const Value& item : v.elements()) {
    Value key = key_of(item, a.get(1, "attribute"), flag(a, 0, "case_sensitive", false));
    if (std::ranges::find(seen, key) != seen.end()) continue;
    seen.push_back(std::move(key));
    out.push_back(item);
  }
  return out;
}

Value extreme(const Value& v, const Arguments& a, bool most) {
  const std::vector<Value> all = v.elements();
  if (all.empty()) return Undefined{"the extreme of nothing"};
  const auto less = [&](const Value& x, const Value& y) {
    const bool matters = flag(a, 0, "case_sensitive", false);
    return key_of(x, a.get(1, "attribute"), matters)
        .less(key_of(y, a.get(1, "attribute"), matters));
  };
  size_t best = 0;
  for (size_t i = 1; i < all.size(); ++i) {
    if (most ? less(all[best], all[i]) : less(all[i], all[best])) best = i;
  }
  return all[best];
}

Value dict_items(const Value& v) {
  if (v.undefined()) return std::vector<Value>{};
  if (!v.dict()) throw DataError("Can only get item pairs from a mapping.");
  std::vector<Value> out;
  for (const auto& [key, item] : v.dict()->items)
    out.emplace_back(std::vector<Value>{Value(key), item}, true);
  return out;
}

Value dictsort(const Value& v, const Arguments& a) {
  std::vector<Value> out = dict_items(v).elements();
  const bool matters = flag(a, 0, "case_sensitive", false);
  const size_t by = text_or(a, 1, "by", "key") == "value" ? 1 : 0;
  std::ranges::stable_sort(out, [&](const Value& x, const Value& y) {
    return key_of(x.list()->items[by], nullptr, matters)
        .less(key_of(y.list()->items[by], nullptr, matters));
  });
  if (flag(a, 2, "reverse", false)) std::ranges::reverse(out);
  return out;
}

Value join(const Value& v, const Arguments& a) {
  const std::string between = text_or(a, 0, "d", "");
  const Value* attribute = a.get(1, "attribute");
  std::string out;
  bool first = true;
  for (const Value& item : v.elements()) {
    if (!first) out += between;
    first = false;
    out += (attribute ? path_of(item, *attribute) : item).text();
  }
  return out;
}

Value sum(const Value& v, const Arguments& a) {
  const Value* attribute = a.get(0, "attribute");
  double total = 0;
  int64_t whole = 0;
  bool integers = true;
  for (const Value& item : v.elements()) {
    const Value number = attribute ? path_of(item, *attribute) : item;
    if (!number.is_number()) throw DataError("\"sum\" adds numbers, not ", number.type());
    integers = integers && number.is_integer();
    if (number.is_integer()) whole += number.integer();
    total += number.number();
  }
  return integers ? Value(whole) : Value(total);
}

Value to_int(const Value& v, const Arguments& a) {
  const int64_t fallback = integer_or(a, 0, "default", 0);
  if (v.is_integer()) return v.integer();
  const auto whole = [&](double d) {
    return std::isfinite(d) && std::abs(d) < 9e18 ? static_cast<int64_t>(d) : fallback;
  };
  if (v.is_number()) return whole(v.number());
  if (!v.string()) return fallback;
  const std::string text = strip(*v.string());
  int64_t out = 0;
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* const end = text.data() + text.size();
  if (const auto [stop, e] = std::from_chars(begin, end, out); e == std::errc() && stop == end)
    return out;
  double real = 0;
  if (const auto [stop, e] = std::from_chars(begin, end, real); e == std::errc() && stop == end)
    return whole(real);
  return fallback;
}

Value to_float(const Value& v, const Arguments& a) {
  if (v.is_number()) return v.number();
  const Value* fallback = a.get(0, "default");
  double out = fallback && fallback->is_number() ? fallback->number() : 0.0;
  if (const std::string* s = v.string()) {
    const std::string text = strip(*s);
    double read = 0;
    const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
    const auto [stop, e] = std::from_chars(begin, text.data() + text.size(), read);
    if (e == std::errc() && stop == text.data() + text.size()) out = read;
  }
  return out;
}

Value rounded(const Value& v, const Arguments& a) {
  if (!v.is_number()) throw DataError("\"round\" takes numbers, not ", v.type());
  const double scale = std::pow(10.0, static_cast<double>(integer_or(a, 0, "precision", 0)));
  const std::string method = text_or(a, 1, "method", "common");
  const double x = v.number() * scale;
  if (method == "ceil") return std::ceil(x) / scale;
  if (method == "floor") return std::floor(x) / scale;
  if (method != "common") throw DataError("\"round\" knows common, ceil and floor, not ", method);
  return std::nearbyint(x) / scale;  // halves to even, as Python
}

Value indent(const Value& v, const Arguments& a) {
  const Value* width = a.get(0, "width");
  const std::string pad = width && width->string()
                              ? *width->string()
                              : std::string(static_cast<size_t>(integer_or(a, 0, "width", 4)), ' ');
  const bool first = flag(a, 1, "first", false), blank = flag(a, 2, "blank", false);
  std::string out;
  const std::vector<std::string> lines = split(v.text(), "\n", -1);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if ((i > 0 || first) && (blank || !lines[i].empty())) out += pad;
    out += lines[i];
  }
  return out;
}

Value json(const Value& v, const Arguments& a) {
  // ensure_ascii and separators have the values that Hugging Face gives them.
  for (const auto& argument : a.named) {
    if (argument.first != "indent" && argument.first != "ensure_ascii")
      throw DataError("\"tojson\" with \"", argument.first, "\" is not supported");
  }
  return v.json(integer_or(a, 0, "indent", -1));
}

Value reversed(const Value& v, const Arguments&) {
  std::vector<Value> all = v.elements();
  std::ranges::reverse(all);
  if (!v.string()) return all;
  std::string out;
  for (const Value& c : all) out += *c.string();
  return out;
}

Value end_of(const Value& v, bool first) {
  const std::vector<Value> all = v.elements();
  if (all.empty()) return Undefined{first ? "the first of nothing" : "the last of nothing"};
  return first ? all.front() : all.back();
}

Value trimmed(const Value& v, const Arguments& a) {
  const Value* chars = a.get(0, "chars");
  return chars && chars->string() ? strip(v.text(), *chars->string()) : strip(v.text());
}

Value fallen_back(const Value& v, const Arguments& a) {
  const bool missing = v.undefined() || (flag(a, 1, "boolean", false) && !v.truth());
  if (!missing) return v;
  const Value* value = a.get(0, "default_value");
  return value ? *value : Value("");
}

Value replaced(const Value& v, const Arguments& a) {
  return replace(v.text(),
                 wanted(a, 0, "old").text(),
                 wanted(a, 1, "new").text(),
                 integer_or(a, 2, "count", -1));
}

Value absolute(const Value& v, const Arguments&) {
  if (!v.is_number()) throw DataError("bad operand type for abs(): '", v.type(), "'");
  return v.is_integer() ? Value(std::abs(v.integer())) : Value(std::abs(v.number()));
}

struct NamedFilter {
  std::string_view name;
  FilterFunction function;
};

constexpr auto kFilters = std::to_array<NamedFilter>({
    {"abs", absolute},
    {"capitalize", [](const Value& v, const Arguments&) -> Value { return capitalize(v.text()); }},
    {"count", [](const Value& v, const Arguments& a) -> Value { return length(v, a); }},
    {"d", fallen_back},
    {"default", fallen_back},
    {"dictsort", dictsort},
    {"first", [](const Value& v, const Arguments&) { return end_of(v, true); }},
    {"float", to_float},
    {"indent", indent},
    {"int", to_int},
    {"items", [](const Value& v, const Arguments&) { return dict_items(v); }},
    {"join", join},
    {"last", [](const Value& v, const Arguments&) { return end_of(v, false); }},
    {"length", [](const Value& v, const Arguments& a) -> Value { return length(v, a); }},
    {"list", [](const Value& v, const Arguments&) -> Value { return v.elements(); }},
    {"lower", [](const Value& v, const Arguments&) -> Value { return lower(v.text()); }},
    {"map", map},
    {"max", [](const Value& v, const Arguments& a) { return extreme(v, a, true); }},
    {"min", [](const Value& v, const Arguments& a) { return extreme(v, a, false); }},
    {"reject", [](const Value& v, const Arguments& a) { return selected(v, a, false, false); }},
    {"rejectattr", [](const Value& v, const Arguments& a) { return selected(v, a, false, true); }},
    {"replace", replaced},
    {"reverse", reversed},
    {"round", rounded},
    {"safe", [](const Value& v, const Arguments&) -> Value { return v.text(); }},
    {"select", [](const Value& v, const Arguments& a) { return selected(v, a, true, false); }},
    {"selectattr", [](const Value& v, const Arguments& a) { return selected(v, a, true, true); }},
    {"sort", sorted},
    {"string", [](const Value& v, const Arguments&) -> Value { return v.text(); }},
    {"sum", sum},
    {"title", [](const Value& v, const Arguments&) -> Value { return title(v.text()); }},
    {"tojson", json},
    {"trim", trimmed},
    {"unique", unique},
    {"upper", [](const Value& v, const Arguments&) -> Value { return upper(v.text()); }},
});

int64_t whole_number(const Value& v) {
  if (!v.is_integer()) throw DataError("this test takes integers, not ", v.type());
  return v.integer();
}

struct NamedTest {
  std::string_view name;
  TestFunction function;
};

bool equal(const Value& v, const Arguments& a) {
  return v == wanted(a, 0, "other");
}
bool less(const Value& v, const Arguments& a) {
  return v.less(wanted(a, 0, "other"));
}
bool greater(const Value& v, const Arguments& a) {
  return wanted(a, 0, "other").less(v);
}

constexpr auto kTests = std::to_array<NamedTest>({
    {"boolean", [](const Value& v, const Arguments&) { return v.is_bool(); }},
    {"callable", [](const Value& v, const Arguments&) { return v.function() != nullptr; }},
    {"defined", [](const Value& v, const Arguments&) { return !v.undefined(); }},
    {"divisibleby",
     [](const Value& v, const Arguments& a) {
       const int64_t by = whole_number(wanted(a, 0, "num"));
       if (by == 0) throw DataError("division by zero");
       return whole_number(v) % by == 0;
     }},
    {"==", equal},
    {"eq", equal},
    {"equalto", equal},
    {"even", [](const Value& v, const Arguments&) { return whole_number(v) % 2 == 0; }},
    {"false", [](const Value& v, const Arguments&) { return v.is_bool() && !v.truth(); }},
    {"float", [](const Value& v, const Arguments&) { return v.is_number() && !v.is_integer(); }},
    {"ge", [](const Value& v, const Arguments& a) { return greater(v, a) || equal(v, a); }},
    {"gt", greater},
    {"greaterthan", greater},
    {"in", [](const Value& v, const Arguments& a) { return wanted(a, 0, "seq").contains(v); }},
    {"integer", [](const Value& v, const Arguments&) { return v.is_integer() && !v.is_bool(); }},
    {"iterable",
     [](const Value& v, const Arguments&) {
       return v.undefined() || v.string() || v.list() || v.dict();
     }},
    {"le", [](const Value& v, const Arguments& a) { return less(v, a) || equal(v, a); }},
    {"lessthan", less},
    {"lower", [](const Value& v, const Arguments&) { return lower(v.text()) == v.text(); }},
    {"lt", less},
    {"mapping", [](const Value& v, const Arguments&) { return v.dict() != nullptr; }},
    {"ne", [](const Value& v, const Arguments& a) { return !equal(v, a); }},
    {"none", [](const Value& v, const Arguments&) { return v.none(); }},
    {"number", [](const Value& v, const Arguments&) { return v.is_number(); }},
    {"odd", [](const Value& v, const Arguments&) { return whole_number(v) % 2 != 0; }},
    {"sequence",
     [](const Value& v, const Arguments&) { return v.string() || v.list() || v.dict(); }},
    {"string", [](const Value& v, const Arguments&) { return v.string() != nullptr; }},
    {"true", [](const Value& v, const Arguments&) { return v.is_bool() && v.truth(); }},
    {"undefined", [](const Value& v, const Arguments&) { return v.undefined(); }},
    {"upper", [](const Value& v, const Arguments&) { return upper(v.text()) == v.text(); }},
});

}  // namespace

FilterFunction find_filter(std::string_view name) {
  const auto at = std::ranges::find(kFilters, name, &NamedFilter::name);
  return at == kFilters.end() ? nullptr : at->function;
}

TestFunction find_test(std::string_view name) {
  const auto at = std::ranges::find(kTests, name, &NamedTest::name);
  return at == kTests.end() ? nullptr : at->function;
}

}  // namespace praetor::jinja
