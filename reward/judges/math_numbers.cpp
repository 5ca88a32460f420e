#include "reward/judges/math_numbers.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <optional>

namespace praetor {

namespace {

/// A plain decimal: digits without leading zeros before the point, without trailing zeros after it.
struct Decimal {
  bool negative = false;
  std::string whole;
  std::string part;
  bool zero() const { return whole.empty() && part.empty(); }
  bool operator==(const Decimal&) const = default;
};

bool digits(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

std::optional<Decimal> parse_decimal(std::string_view text) {
  Decimal out;
  if (text.starts_with('-')) {
    out.negative = true;
    text.remove_prefix(1);
  }
  const size_t point = text.find('.');
  std::string_view whole = text.substr(0, point);
  std::string_view part =
      point == std::string_view::npos ? std::string_view() : text.substr(point + 1);
  if ((whole.empty() && part.empty()) || !digits(whole) || !digits(part)) return std::nullopt;
  while (whole.starts_with('0')) whole.remove_prefix(1);
  while (part.ends_with('0')) part.remove_suffix(1);
  out.whole = whole;
  out.part = part;
  if (out.zero()) out.negative = false;
  return out;
}

struct Number {
  Decimal top;
  std::optional<Decimal> bottom;  ///< not zero
  bool whole() const { return !bottom && top.part.empty(); }
};

std::optional<Number> parse_number(std::string_view text) {
  const size_t slash = text.find('/');
  const auto top = parse_decimal(text.substr(0, slash));
  if (!top) return std::nullopt;
  if (slash == std::string_view::npos) return Number{*top, std::nullopt};
  const auto bottom = parse_decimal(text.substr(slash + 1));
  if (!bottom || bottom->zero()) return std::nullopt;
  return Number{*top, *bottom};
}

__extension__ typedef __int128 Wide;

/// A decimal as value / scale, exactly; nothing above 17 digits, so that products of two fit in 128
/// bits.
struct Scaled {
  Wide value = 0;
  Wide scale = 1;
};

std::optional<Scaled> scaled(const Decimal& number) {
  if (number.whole.size() + number.part.size() > 17) return std::nullopt;
  Scaled out;
  for (const char c : number.whole + number.part) out.value = out.value * 10 + (c - '0');
  for (size_t i = 0; i < number.part.size(); ++i) out.scale *= 10;
  if (number.negative) out.value = -out.value;
  return out;
}

/// The fraction top / bottom, when its terms are small enough to be multiplied by another's without
/// overflow.
std::optional<Scaled> exact(const Number& number) {
  const auto top = scaled(number.top);
  if (!number.bottom || !top) return top;
  const auto bottom = scaled(*number.bottom);
  if (!bottom) return std::nullopt;
  const Scaled out{top->value * bottom->scale, top->scale * bottom->value};
  constexpr Wide kBound = 1'000'000'000'000'000'000;
  const auto within = [](Wide x) { return x < kBound && x > -kBound; };
  if (!within(out.value) || !within(out.scale)) return std::nullopt;
  return out;
}

double approximate(const Decimal& number) {
  return std::strtod(
      ((number.negative ? "-0" : "0") + number.whole + "." + number.part + "0").c_str(), nullptr);
}

double approximate(const Number& number) {
  const double top = approximate(number.top);
  return number.bottom ? top / approximate(*number.bottom) : top;
}

std::string_view trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace

std::string normalise_number(std::string_view text, std::string_view marker) {
  const std::string head = std::string(marker) + " ";
  if (const size_t at = text.rfind(head); at != std::string_view::npos)
    text.remove_prefix(at + head.size());
  std::string out(trim(text));
  std::erase_if(out, [](char c) { return c == ',' || c == '$'; });
  if (out.ends_with('.')) out.pop_back();
  return out;
}

bool is_number(std::string_view text) {
  return parse_number(text).has_value();
}

bool same_number(std::string_view a, std::string_view b) {
  if (a == b) return true;
  const auto left = parse_number(a);
  const auto right = parse_number(b);
  if (!left || !right) return false;
  if (left->whole() && right->whole()) return left->top == right->top;
  if (!left->bottom && !right->bottom && left->top == right->top) return true;
  const auto x = exact(*left);
  const auto y = exact(*right);
  if (x && y && x->value * y->scale == y->value * x->scale) return true;
  const double p = approximate(*left);
  const double q = approximate(*right);
  return std::abs(p - q) <= 1e-6 * std::max(1.0, std::abs(q));
}

}  // namespace praetor
