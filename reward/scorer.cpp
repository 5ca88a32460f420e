#include "reward/scorer.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/base/text.h"
#include "reward/parallel.h"
#include "reward/tree.h"

namespace praetor {

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

/// Why no part may look at a sample; empty when it may be scored.
std::string unreadable(const Sample& sample) {
  if (!is_utf8(sample.response)) return "the response is not valid UTF-8";
  if (!is_utf8(sample.prompt)) return "the prompt is not valid UTF-8";
  return "";
}

/// A Bradley-Terry model as a part of a mixture.
class RewardModelPart final : public BatchPart {
 public:
  explicit RewardModelPart(std::unique_ptr<RewardModel> model) : model_(std::move(model)) {}

  std::vector<BatchResult> score(std::span<const BatchItem> items) const override {
    std::vector<Sample> samples;
    for (const BatchItem& item : items) samples.push_back(*item.sample);
    std::vector<BatchResult> out;
    for (RewardModel::Result& result : model_->score(samples))
      out.push_back({.score = result.score, .error = std::move(result.error)});
    return out;
  }

 private:
  std::unique_ptr<RewardModel> model_;
};

std::unique_ptr<BatchPart> load_part(const PartConfig& part, const StageResults& stage_result) {
  const auto folder = part.folder();
  if (!folder) return nullptr;
  const auto path = folder->in(stage_result);
  if (part.llm_judge) return LlmJudge::load(path, *part.llm_judge);
  if (part.preference) return PreferencePart::load(path, *part.preference);
  if (part.attributes) return AttributePart::load(path, *part.attributes);
  return std::make_unique<RewardModelPart>(RewardModel::load(path, *part.model));
}

std::unique_ptr<ExternalService> connect_part(const PartConfig& part,
                                              const ConnectScorer& connect) {
  if (!part.service) return nullptr;
  PRAETOR_CHECK(connect, "part ", part.name, " has an address, and this scorer no way to call it");
  return std::make_unique<ExternalService>(*part.service, connect(part.service->address));
}

}  // namespace

Scorer::Scorer(const RewardConfig& config, Options options)
    : config_(config),
      options_(std::move(options)),
      parts_(list_parts(config_)),
      cache_(config.cache_entries) {
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  threads_ = options_.threads > 0 ? options_.threads : std::clamp(cores, 1, 4);
  reset_counters();
}

std::unique_ptr<Scorer> Scorer::make(const RewardConfig& config,
                                     const StageResults& stage_result,
                                     Options options) {
  std::unique_ptr<Scorer> scorer(new Scorer(config, std::move(options)));
  PRAETOR_CHECK(!scorer->parts_.empty(), "a reward has at least one part");
  for (const ListedPart& part : scorer->parts_) {
    const PartConfig& one = *part.config;
    PRAETOR_CHECK((one.judge != nullptr) + one.service.has_value() + one.tree.has_value() +
                          one.folder().has_value() ==
                      1,
                  "part ",
                  one.name,
                  " is one of judge, service, tree and model");
    scorer->models_.push_back(load_part(one, stage_result));
    scorer->services_.push_back(connect_part(one, scorer->options_.connect));
  }
  return scorer;
}

std::string Scorer::name_of(size_t sample) const {
  return options_.name_of ? options_.name_of(sample) : str("sample ", sample);
}

std::vector<Score> Scorer::score(std::span<const Sample> samples,
                                 std::span<const std::vector<Rival>> rivals) {
  PRAETOR_CHECK(rivals.empty() || rivals.size() == samples.size(),
                rivals.size(),
                " lists of rivals for ",
                samples.size(),
                " samples");
  std::vector<Outcome> outcomes(samples.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    try {
      outcomes[i].task = config_.task_of(samples[i].metadata);
    } catch (const DataError& failure) {
      throw DataError(name_of(i), ": ", failure.what());
    }
    for (const ListedPart& part : parts_)
      outcomes[i].parts.push_back({.name = part.config->name, .weight = part.config->weight});
  }
  run_judges(samples, outcomes);
  run_services(samples, outcomes);
  run_models(samples, rivals, outcomes);
  std::vector<Score> scores;
  scores.reserve(samples.size());
  for (Outcome& outcome : outcomes) {
    run_trees(outcome);
    for (size_t p = 0; p < parts_.size(); ++p) {
      if (applies(p, outcome)) counters_[p].add(outcome.parts[p]);
    }
  }
  for (size_t i = 0; i < samples.size(); ++i) scores.push_back(combine(outcomes[i], i));
  return scores;
}

void Scorer::run_judges(std::span<const Sample> samples, std::vector<Outcome>& outcomes) {
  const auto judged = [](const ListedPart& part) { return part.config->judge != nullptr; };
  if (std::ranges::none_of(parts_, judged)) return;
  for_each_index(samples.size(), threads_, [&](size_t i) {
    const std::string broken = unreadable(samples[i]);
    for (size_t p = 0; p < parts_.size(); ++p) {
      if (!judged(parts_[p]) || !applies(p, outcomes[i])) continue;
      PartScore& part = outcomes[i].parts[p];
      part.error = broken;
      if (broken.empty()) run_judge(p, samples[i], part);
    }
  });
}

void Scorer::run_judge(size_t part, const Sample& sample, PartScore& out) {
  const PartConfig& config = *parts_[part].config;
  const auto begin = Clock::now();
  const std::string key = cache_.on() ? VerdictCache::key(part, sample) : "";
  std::optional<Verdict> verdict = cache_.on() ? cache_.find(key) : std::nullopt;
  out.cached = verdict.has_value();
  const int64_t retries = config.retries.value_or(config_.retries);
  for (int32_t attempt = 0; !verdict && attempt <= retries; ++attempt) {
    out.retries = attempt;
    // A thread's body is a border: whatever a judge throws becomes the sample's named error.
    try {
      verdict =
          config.judge->judge(sample, Deadline::after(config.timeout.value_or(config_.timeout)));
      if (cache_.on()) cache_.keep(key, *verdict);
    } catch (const std::exception& failure) {
      out.error = failure.what();
    }
  }
  if (verdict) {
    out.error.clear();
    out.score = verdict->score;
    out.verdict = verdict->passed;
    out.reason = std::move(verdict->reason);
    out.not_applicable = verdict->not_applicable;
  }
  out.latency_ms = milliseconds_since(begin);
}

void Scorer::run_services(std::span<const Sample> samples, std::vector<Outcome>& outcomes) {
  for (size_t p = 0; p < services_.size(); ++p) {
    if (!services_[p]) continue;
    std::vector<ExternalService::Item> items;
    for (size_t i = 0; i < samples.size(); ++i) {
      if (!applies(p, outcomes[i])) continue;
      PartScore& out = outcomes[i].parts[p];
      out.error = unreadable(samples[i]);
      if (out.error.empty()) items.push_back({&samples[i], &out});
    }
    const PartConfig& config = *parts_[p].config;
    services_[p]->score(items,
                        {.timeout = config.timeout.value_or(config_.timeout),
                         .retries = config.retries.value_or(config_.retries),
                         .threads = threads_},
                        p,
                        cache_);
  }
}

void Scorer::run_models(std::span<const Sample> samples,
                        std::span<const std::vector<Rival>> rivals,
                        std::vector<Outcome>& outcomes) const {
  for (size_t p = 0; p < models_.size(); ++p) {
    if (!models_[p]) continue;
    std::vector<BatchItem> items;
    std::vector<size_t> places;
    for (size_t i = 0; i < samples.size(); ++i) {
      if (!applies(p, outcomes[i])) continue;
      outcomes[i].parts[p].error = unreadable(samples[i]);
      if (!outcomes[i].parts[p].error.empty()) continue;
      items.push_back({&samples[i], rivals.empty() ? std::span<const Rival>() : rivals[i]});
      places.push_back(i);
    }
    const auto begin = Clock::now();
    std::vector<BatchResult> results = models_[p]->score(items);
    const double each =
        items.empty() ? 0.0 : milliseconds_since(begin) / static_cast<double>(items.size());
    for (size_t k = 0; k < places.size(); ++k) {
      Outcome& outcome = outcomes[places[k]];
      PartScore& part = outcome.parts[p];
      part.score = results[k].score;
      part.verdict = results[k].verdict;
      part.reason = std::move(results[k].reason);
      part.error = std::move(results[k].error);
      part.not_applicable = results[k].not_applicable;
      part.attributes = std::move(results[k].attributes);
      part.latency_ms = each;
      if (parts_[p].config->preference) outcome.preferences = std::move(results[k].preferences);
    }
  }
}

void Scorer::run_trees(Outcome& outcome) const {
  // From the back: what is in a tree stands behind it.
  for (size_t p = parts_.size(); p-- > 0;) {
    if (!parts_[p].config->tree || !applies(p, outcome)) continue;
    std::vector<PartScore> children;
    double latency = 0.0;
    for (const size_t child : parts_[p].children) {
      children.push_back(outcome.parts[child]);
      latency += outcome.parts[child].latency_ms;
    }
    PartScore result = tree_result(*parts_[p].config, children);
    result.name = outcome.parts[p].name;
    result.weight = outcome.parts[p].weight;
    result.latency_ms = latency;
    outcome.parts[p] = std::move(result);
  }
}

Score Scorer::combine(Outcome& outcome, size_t sample) const {
  Score out;
  double sum = 0.0;
  bool dropped = false, fallback = false;
  bool constrained = false, unknown = false, held = true;
  for (size_t p = 0; p < parts_.size(); ++p) {
    if (!applies(p, outcome)) continue;
    const PartConfig& config = *parts_[p].config;
    PartScore& part = outcome.parts[p];
    if (parts_[p].top && config.use != PartUse::kMonitor) {
      const bool constraint = config.use == PartUse::kConstraint;
      const PartOutcome result = outcome_of(config, part);
      const OnError rule = config.on_error.value_or(config_.on_error);
      if (result.failed && rule == OnError::kFail) {
        throw DataError(name_of(sample), ": rewards part \"", part.name, "\": ", part.error);
      }
      dropped = dropped || (result.failed && rule == OnError::kDrop);
      fallback = fallback || (result.failed && rule == OnError::kValue);
      constrained = constrained || constraint;
      unknown = unknown || (constraint && result.failed);
      if (constraint) held = held && result.verdict.value_or(true);
      if (!constraint && !result.failed) sum += config.weight * result.score;
    }
    out.parts.push_back(std::move(part));
  }
  if (!dropped) out.score = fallback ? config_.error_value : sum;
  if (constrained && !unknown) out.satisfied = held;
  if (outcome.task) out.task = config_.tasks[*outcome.task].name;
  out.preferences = std::move(outcome.preferences);
  return out;
}

}  // namespace praetor
