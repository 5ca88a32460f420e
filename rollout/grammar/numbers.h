#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "rollout/grammar/expression.h"

namespace praetor::grammar {

/// An end of a range of numbers: the decimal digits before and behind the point, without zeros that
/// say nothing ("0" and "" of zero, which is not negative).
struct Bound {
  bool negative = false;
  std::string whole, fraction;
  bool exclusive = false;
};

/// The bound that a JSON number is.
Bound bound_of(const nlohmann::ordered_json& number, bool exclusive);

/// Which numbers: all, or those between the ends, and for integers those that `multiple_of`
/// divides.
struct NumberRange {
  std::optional<Bound> low, high;
  int64_t multiple_of = 1;
  bool unbounded() const { return !low && !high; }
};

/// Integers as JSON writes them, of at most 16 digits: digit by digit they are held against the
/// bounds, and their remainder is carried along. Null: there is none.
ExpressionPtr integers(const NumberRange& range);

/// Numbers, of at most 16 digits before and behind the point and two in the exponent. Within bounds
/// they have no exponent and at most 6 digits behind the point (or as many as a bound has), fewer
/// beside large bounds, so that a double tells each from a bound. Null: there is none.
ExpressionPtr numbers(const NumberRange& range);

}  // namespace praetor::grammar
