#include "reward/part_counters.h"

#include <algorithm>

namespace praetor {

void PartCounters::add(const PartScore& part) {
  latency_ms_sum += part.latency_ms;
  retries += part.retries;
  cached += part.cached ? 1 : 0;
  if (!part.error.empty()) {
    ++(part.error.starts_with("timeout") ? timeouts : errors);
    if (first_error.empty()) first_error = part.error;
    return;
  }
  ++scored;
  if (part.not_applicable) {
    ++not_applicable;
    return;
  }
  score_sum += *part.score;
  for (const AttributeScore& one : part.attributes) {
    auto sum = std::ranges::find(attributes, one.name, &AttributeScore::name);
    if (sum == attributes.end()) sum = attributes.insert(attributes.end(), {.name = one.name});
    sum->value += one.value;
    sum->weight += one.weight;
  }
  if (part.verdict) ++(*part.verdict ? passed : failed);
}

std::vector<PartCounters> empty_counters(const RewardConfig& config) {
  std::vector<PartCounters> out;
  for (const ListedPart& part : list_parts(config)) {
    out.push_back({.name = part.config->name,
                   .gives_verdict = part.config->gives_verdict(),
                   .is_judge = part.config->judge || part.config->service,
                   .monitor = part.use == PartUse::kMonitor});
  }
  return out;
}

void count_parts(std::span<const PartScore> parts, std::vector<PartCounters>& counters) {
  for (const PartScore& part : parts) {
    const auto found = std::ranges::find(counters, part.name, &PartCounters::name);
    if (found != counters.end()) found->add(part);
  }
}

std::vector<std::pair<std::string, double>> part_metrics(std::span<const PartCounters> parts) {
  std::vector<std::pair<std::string, double>> out;
  const auto ratio = [&](const std::string& name, double top, int64_t bottom) {
    if (bottom > 0) out.emplace_back(name, top / static_cast<double>(bottom));
  };
  for (const PartCounters& c : parts) {
    const std::string judge = "judge/" + c.name;
    ratio("reward/" + c.name + "/mean", c.score_sum, c.scored - c.not_applicable);
    for (const AttributeScore& one : c.attributes)
      ratio("reward/" + c.name + "/" + one.name, one.value, c.scored - c.not_applicable);
    if (c.gives_verdict) {
      ratio(judge + "/pass", static_cast<double>(c.passed), c.passed + c.failed);
      ratio(judge + "/na", static_cast<double>(c.not_applicable), c.seen());
    }
    if (c.is_judge) {
      ratio(judge + "/timeout", static_cast<double>(c.timeouts), c.seen());
      ratio(judge + "/cached", static_cast<double>(c.cached), c.seen());
      ratio(judge + "/retries", static_cast<double>(c.retries), c.seen());
    }
    ratio(judge + "/error", static_cast<double>(c.errors), c.seen());
    ratio(judge + "/latency_ms", c.latency_ms_sum, c.seen());
  }
  return out;
}

}  // namespace praetor
