#include "rollout/grammar/numbers.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "rollout/grammar/pattern.h"

namespace praetor::grammar {
namespace {

constexpr int64_t kMostDigits = 16;     // before the point
constexpr int64_t kExactDigits = 15;    // that a double holds
constexpr int64_t kFractionDigits = 6;  // within bounds

using Ways = std::vector<ExpressionPtr>;

/// A digit from `low` to `high`, which may be empty.
void add_digits(
    Ways& ways, const std::string& before, char low, char high, const ExpressionPtr& behind) {
  if (low > high) return;
  ways.push_back(sequence(
      {literal(before),
       character(CodePoints(static_cast<unsigned char>(low), static_cast<unsigned char>(high))),
       behind}));
}

ExpressionPtr digits(int64_t least, int64_t most) {
  return repeat(character(CodePoints('0', '9')), least, std::max(least, most));
}

ExpressionPtr one_of(Ways ways) {
  if (ways.empty()) return nullptr;
  return ways.size() == 1 ? ways[0] : choice(std::move(ways));
}

/// Numbers without a sign, held against one bound. `places`: most digits behind the point; 0: whole
/// numbers.
class Magnitudes {
 public:
  explicit Magnitudes(int64_t places) : places_(places) {}

  ExpressionPtr all() const {
    return sequence({parse_pattern("0|[1-9][0-9]{0,15}", Extent::kWhole), any_fraction()});
  }

  ExpressionPtr at_least(const Bound& bound) const {
    const std::string& whole = bound.whole;
    const auto length = static_cast<int64_t>(whole.size());
    Ways ways;
    if (length < kMostDigits) {
      add_digits(ways, "", '1', '9', sequence({digits(length, kMostDigits - 1), any_fraction()}));
    }
    if (length <= kMostDigits) {
      for (int64_t i = 0; i < length; ++i)
        add_digits(ways, whole.substr(0, i), at(whole, i) + 1, '9', rest(length - 1 - i));
      if (const ExpressionPtr behind = fraction_at_least(bound))
        ways.push_back(sequence({literal(whole), behind}));
    }
    return one_of(std::move(ways));
  }

  ExpressionPtr at_most(const Bound& bound) const {
    const std::string& whole = bound.whole;
    const auto length = static_cast<int64_t>(whole.size());
    if (length > kMostDigits) return all();
    Ways ways;
    if (length > 1) {
      ways.push_back(sequence({literal("0"), any_fraction()}));
      if (length > 2)
        add_digits(ways, "", '1', '9', sequence({digits(0, length - 2), any_fraction()}));
      else
        add_digits(ways, "", '1', '9', any_fraction());
    }
    for (int64_t i = 0; i < length; ++i) {
      const char least = i == 0 && length > 1 ? '1' : '0';
      add_digits(ways, whole.substr(0, i), least, at(whole, i) - 1, rest(length - 1 - i));
    }
    if (const ExpressionPtr behind = fraction_at_most(bound))
      ways.push_back(sequence({literal(whole), behind}));
    return one_of(std::move(ways));
  }

 private:
  /// A point and the first digits behind it.
  static std::string point(const std::string& digits, int64_t count) {
    std::string out(1, '.');
    return out.append(digits, 0, static_cast<size_t>(count));
  }

  static char at(const std::string& text, int64_t i) { return text[static_cast<size_t>(i)]; }

  ExpressionPtr rest(int64_t count) const {
    return sequence({digits(count, count), any_fraction()});
  }

  ExpressionPtr any_fraction() const {
    if (places_ == 0) return literal("");
    return repeat(sequence({literal("."), digits(1, places_)}), 0, 1);
  }

  /// Digits behind those that a fraction has already.
  ExpressionPtr further(int64_t have) const {
    return digits(0, std::max<int64_t>(0, places_ - have));
  }

  ExpressionPtr fraction_at_least(const Bound& bound) const {
    const std::string& f = bound.fraction;
    if (places_ == 0) return f.empty() && !bound.exclusive ? literal("") : nullptr;
    const auto length = static_cast<int64_t>(f.size());
    if (length == 0 && !bound.exclusive) return any_fraction();
    Ways ways;
    for (int64_t i = 0; i < length; ++i)
      add_digits(ways, point(f, i), at(f, i) + 1, '9', further(i + 1));
    if (!bound.exclusive) {
      ways.push_back(sequence({literal(point(f, length)), further(length)}));
    } else {
      for (int64_t zeros = 0; length + zeros < places_; ++zeros) {
        std::string same = point(f, length);
        same.append(static_cast<size_t>(zeros), '0');
        add_digits(ways, same, '1', '9', further(length + zeros + 1));
      }
    }
    return one_of(std::move(ways));
  }

  ExpressionPtr fraction_at_most(const Bound& bound) const {
    const std::string& f = bound.fraction;
    const bool equal = !bound.exclusive;
    if (places_ == 0) return equal || !f.empty() ? literal("") : nullptr;
    const auto length = static_cast<int64_t>(f.size());
    Ways ways;
    if (length > 0 || equal) ways.push_back(literal(""));
    for (int64_t i = 0; i < length; ++i) {
      if (i > 0) ways.push_back(literal(point(f, i)));
      add_digits(ways, point(f, i), '0', at(f, i) - 1, further(i + 1));
    }
    if (equal) {
      const int64_t most = std::max<int64_t>(0, places_ - length);
      const int64_t least = length == 0 ? 1 : 0;
      ways.push_back(sequence(
          {literal(point(f, length)), repeat(literal("0"), least, std::max(least, most))}));
    }
    return one_of(std::move(ways));
  }

  int64_t places_;
};

bool is_zero(const Bound& bound) {
  return bound.whole == "0" && bound.fraction.empty();
}

/// Magnitudes from `low` to `high`, each a bound or nothing. Null: there is none.
ExpressionPtr between(const Magnitudes& magnitudes, const Bound* low, const Bound* high) {
  if (!low && !high) return magnitudes.all();
  const ExpressionPtr above = low ? magnitudes.at_least(*low) : nullptr;
  const ExpressionPtr below = high ? magnitudes.at_most(*high) : nullptr;
  if ((low && !above) || (high && !below)) return nullptr;
  if (low && high) return all_of({above, below});
  return low ? above : below;
}

const Bound* get(const std::optional<Bound>& bound) {
  return bound ? &*bound : nullptr;
}

ExpressionPtr in_range(const NumberRange& range, int64_t places) {
  const Magnitudes magnitudes(places);
  const Bound* low = get(range.low);
  const Bound* high = get(range.high);
  Ways ways;
  if (!high || !high->negative) {
    const Bound* from = low && !low->negative && (low->exclusive || !is_zero(*low)) ? low : nullptr;
    if (const ExpressionPtr found = between(magnitudes, from, high)) ways.push_back(found);
  }
  const bool negative = !low || low->negative || (is_zero(*low) && !low->exclusive);
  if (negative) {
    const bool above = high && (high->negative || (is_zero(*high) && high->exclusive));
    if (const ExpressionPtr found = between(magnitudes, above ? high : nullptr, low))
      ways.push_back(sequence({literal("-"), found}));
  }
  return one_of(std::move(ways));
}

int64_t length_of(const std::string Bound::*part, const NumberRange& range) {
  size_t most = 0;
  for (const auto* bound : {get(range.low), get(range.high)})
    if (bound) most = std::max(most, (bound->*part).size());
  return static_cast<int64_t>(most);
}

}  // namespace

Bound bound_of(const nlohmann::ordered_json& number, bool exclusive) {
  std::string text = number.dump();  // the shortest that reads as the same double
  Bound out{.negative = text[0] == '-', .exclusive = exclusive};
  if (out.negative) text.erase(0, 1);
  const size_t e = text.find_first_of("eE");
  const int exponent = e == std::string::npos ? 0 : std::atoi(text.c_str() + e + 1);
  std::string all = text.substr(0, e);
  const size_t point = all.find('.');
  auto before = static_cast<int64_t>(point == std::string::npos ? all.size() : point) + exponent;
  if (point != std::string::npos) all.erase(point, 1);
  if (before < 0) {
    all.insert(0, static_cast<size_t>(-before), '0');
    before = 0;
  }
  const auto end = static_cast<size_t>(before);
  if (all.size() < end) all.append(end - all.size(), '0');
  out.whole = all.substr(0, end);
  out.fraction = all.substr(end);
  out.whole.erase(0, std::min(out.whole.find_first_not_of('0'), out.whole.size()));
  if (out.whole.empty()) out.whole.push_back('0');
  out.fraction.erase(out.fraction.find_last_not_of('0') + 1);
  if (is_zero(out)) out.negative = false;
  return out;
}

ExpressionPtr integers(const NumberRange& range) {
  static const ExpressionPtr kAny = parse_pattern("-?(0|[1-9][0-9]{0,15})", Extent::kWhole);
  const ExpressionPtr bounded = range.unbounded() ? kAny : in_range(range, 0);
  if (!bounded || range.multiple_of == 1) return bounded;
  return all_of({bounded, sequence({repeat(literal("-"), 0, 1), multiples(range.multiple_of)})});
}

ExpressionPtr numbers(const NumberRange& range) {
  static const ExpressionPtr kAny = parse_pattern(
      R"(-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,16})?([eE][+-]?[0-9]{1,2})?)", Extent::kWhole);
  if (range.unbounded()) return kAny;
  const int64_t room = kExactDigits - length_of(&Bound::whole, range);
  const int64_t wanted = std::max(kFractionDigits, length_of(&Bound::fraction, range));
  return in_range(range, std::clamp<int64_t>(room, 0, wanted));
}

}  // namespace praetor::grammar
