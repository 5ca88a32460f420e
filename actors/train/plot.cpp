#include "actors/train/plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/base/str.h"

namespace praetor {

namespace {

std::string label(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%9.3f", value);
  return text;
}

/// Mean of the finite values that fall into each column; NaN for an empty one.
std::vector<double> columns_of(const std::vector<double>& values, size_t width) {
  std::vector<double> sums(width, 0.0), counts(width, 0.0);
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) continue;
    const size_t column = i * width / values.size();
    sums[column] += values[i];
    counts[column] += 1;
  }
  for (size_t c = 0; c < width; ++c) sums[c] /= counts[c];
  return sums;
}

}  // namespace

std::string plot(const std::string& title,
                 const std::vector<double>& values,
                 int64_t first_x,
                 int64_t last_x,
                 int width,
                 int height) {
  std::vector<double> finite;
  std::copy_if(values.begin(), values.end(), std::back_inserter(finite), [](double v) {
    return std::isfinite(v);
  });
  if (finite.size() < 2) return "";
  const size_t wanted = std::min(static_cast<size_t>(width), values.size());
  const std::vector<double> columns = columns_of(values, wanted);
  const auto [low, high] = std::minmax_element(finite.begin(), finite.end());
  const double span = *high > *low ? *high - *low : 1.0;
  std::vector<std::string> rows(static_cast<size_t>(height), std::string(wanted, ' '));
  for (size_t c = 0; c < wanted; ++c) {
    if (!std::isfinite(columns[c])) continue;
    const double level = (columns[c] - *low) / span * (height - 1);
    rows[static_cast<size_t>(height - 1 - std::lround(level))][c] = '*';
  }
  std::string out = "  " + title + "\n";
  for (size_t r = 0; r < rows.size(); ++r) {
    const bool top = r == 0, bottom = r + 1 == rows.size();
    out += (top      ? label(*high)
            : bottom ? label(*low)
                     : std::string(9, ' ')) +
           " |" + rows[r] + "\n";
  }
  const std::string first = str(first_x), last = str(last_x);
  const size_t gap = wanted > first.size() + last.size() ? wanted - first.size() - last.size() : 1;
  return out + std::string(10, ' ') + "+" + std::string(wanted, '-') + "\n" + std::string(11, ' ') +
         first + std::string(gap, ' ') + last + "\n";
}

}  // namespace praetor
