#pragma once

#include <string>
#include <string_view>

namespace praetor {

/// Removes what stands around a number: text up to the last `marker` and a blank ("#### "), "," and
/// "$", one trailing
/// ".", and white space at both ends.
std::string normalise_number(std::string_view text, std::string_view marker);

/// True for what `same_number` can read: -5, 18.00, .5, 1/2.
bool is_number(std::string_view text);

/// Equal as texts; or as exact fractions and decimals ("18.0" = "18", "1/2" = "0.5"); or, unless
/// both are whole numbers, |a - b| <= 1e-6 max(1, |b|). Whole numbers get no tolerance: 1000001 is
/// not 1000000.
bool same_number(std::string_view a, std::string_view b);

}  // namespace praetor
