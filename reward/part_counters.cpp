#include "reward/part_counters.h"

namespace praetor {

void PartCounters::add(const PartScore& part) {
  latency_ms_sum += part.latency_ms;
  if (!part.error.empty()) {
    ++(part.error.starts_with("timeout") ? timeouts : errors);
    if (first_error.empty()) first_error = part.error;
    return;
  }
  ++scored;
  // A judge gives a verdict wherever it applies.
  if (is_judge && !part.verdict) {
    ++not_applicable;
    return;
  }
  score_sum += *part.score;
  if (part.verdict) ++(*part.verdict ? passed : failed);
}

std::vector<std::pair<std::string, double>> part_metrics(std::span<const PartCounters> parts) {
  std::vector<std::pair<std::string, double>> out;
  const auto ratio = [&](const std::string& name, double top, int64_t bottom) {
    if (bottom > 0) out.emplace_back(name, top / static_cast<double>(bottom));
  };
  for (const PartCounters& c : parts) {
    const std::string judge = "judge/" + c.name;
    ratio("reward/" + c.name + "/mean", c.score_sum, c.scored - c.not_applicable);
    if (c.is_judge) {
      ratio(judge + "/pass", static_cast<double>(c.passed), c.passed + c.failed);
      ratio(judge + "/na", static_cast<double>(c.not_applicable), c.seen());
      ratio(judge + "/timeout", static_cast<double>(c.timeouts), c.seen());
    }
    ratio(judge + "/error", static_cast<double>(c.errors), c.seen());
    ratio(judge + "/latency_ms", c.latency_ms_sum, c.seen());
  }
  return out;
}

}  // namespace praetor
