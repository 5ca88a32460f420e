#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace praetor {

/// A series as a small picture for a terminal: `height` rows of `width` columns with the highest
/// and lowest value at the left and the first and last x below. Several values of a column are
/// averaged. Empty when fewer than two values are finite.
std::string plot(const std::string& title,
                 const std::vector<double>& values,
                 int64_t first_x,
                 int64_t last_x,
                 int width = 60,
                 int height = 8);

}  // namespace praetor
