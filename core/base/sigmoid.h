#pragma once

#include <cmath>

namespace praetor {

/// sigma(x) = 1 / (1 + e^-x). Of a difference of scores: the probability that the first is
/// preferred (Bradley and Terry, 1952); 1/2 exactly at 0.
inline double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

}  // namespace praetor
