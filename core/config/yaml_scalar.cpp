#include "core/config/yaml_node.h"

namespace praetor {

namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// Takes digits from the front; how many.
size_t take_digits(std::string_view& text) {
  size_t count = 0;
  while (count < text.size() && is_digit(text[count])) ++count;
  text.remove_prefix(count);
  return count;
}

template <typename... Words>
bool any_of(std::string_view text, Words... words) {
  return ((text == words) || ...);
}

}  // namespace

YamlScalar classify_plain(std::string_view text) {
  if (any_of(text, "", "~", "null", "Null", "NULL")) return YamlScalar::kNull;
  if (any_of(text, "true", "True", "TRUE", "false", "False", "FALSE")) return YamlScalar::kBool;
  if (any_of(text, ".nan", ".NaN", ".NAN")) return YamlScalar::kNumber;
  if (text[0] == '+' || text[0] == '-') text.remove_prefix(1);
  if (any_of(text, ".inf", ".Inf", ".INF")) return YamlScalar::kNumber;
  const size_t whole = take_digits(text);
  if (whole > 0 && text.empty()) return YamlScalar::kInteger;
  size_t fraction = 0;
  if (!text.empty() && text[0] == '.') {
    text.remove_prefix(1);
    fraction = take_digits(text);
  }
  if (whole + fraction == 0) return YamlScalar::kText;
  if (!text.empty() && (text[0] == 'e' || text[0] == 'E')) {
    text.remove_prefix(1);
    if (!text.empty() && (text[0] == '+' || text[0] == '-')) text.remove_prefix(1);
    if (take_digits(text) == 0) return YamlScalar::kText;
  }
  return text.empty() ? YamlScalar::kNumber : YamlScalar::kText;
}

YamlScalar classify(const YamlReader::Node& scalar) {
  return scalar.quoted ? YamlScalar::kText : classify_plain(scalar.text);
}

}  // namespace praetor
