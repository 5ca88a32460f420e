#include "learners/statistics.h"

#include <algorithm>
#include <cmath>

namespace praetor {
namespace {

std::optional<double> value_of(const Statistic& s) {
  switch (s.kind) {
    case Statistic::Kind::kMean:
      return s.weight > 0 ? std::optional(s.total / s.weight) : std::nullopt;
    case Statistic::Kind::kExpMean:
      return s.weight > 0 ? std::optional(std::exp(s.total / s.weight)) : std::nullopt;
    default:
      return s.total;
  }
}

}  // namespace

void Statistics::add(const Statistic& statistic) {
  const auto known = std::find_if(
      sums_.begin(), sums_.end(), [&](const Statistic& s) { return s.name == statistic.name; });
  if (known == sums_.end()) {
    sums_.push_back(statistic);
    return;
  }
  switch (statistic.kind) {
    case Statistic::Kind::kMax:
      known->total = std::max(known->total, statistic.total);
      break;
    case Statistic::Kind::kMin:
      known->total = std::min(known->total, statistic.total);
      break;
    default:
      known->total += statistic.total;
      known->weight += statistic.weight;
  }
}

void Statistics::add(const std::vector<Statistic>& statistics) {
  for (const Statistic& statistic : statistics) add(statistic);
}

void Statistics::merge(const Statistics& other) {
  add(other.sums_);
}

std::optional<double> Statistics::value(const std::string& name) const {
  for (const Statistic& s : sums_) {
    if (s.name == name) return value_of(s);
  }
  return std::nullopt;
}

Metrics Statistics::metrics() const {
  Metrics out;
  for (const Statistic& s : sums_) {
    if (const auto value = value_of(s)) out.emplace_back(s.name, *value);
  }
  return out;
}

}  // namespace praetor
