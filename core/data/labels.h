#pragma once

#include <string>
#include <vector>

namespace praetor {

/// The numbers that a row holds in the fields `names`; NaN where a field is missing or null.
/// @param metadata  the row's other fields, a JSON object
/// @throws DataError naming the field and what it holds instead of a number
std::vector<double> row_labels(const std::string& metadata, const std::vector<std::string>& names);

}  // namespace praetor
