#include "reward/scorer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <thread>

#include "core/base/error.h"
#include "core/base/text.h"

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

/// Calls work(i) for i in 0..count-1 on up to `threads` threads, this one included. `work` does not
/// throw.
void for_each_index(size_t count, int threads, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next{0};
  const auto run = [&] {
    for (size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::jthread> helpers;
  const size_t wanted = std::min(count, static_cast<size_t>(threads));
  for (size_t i = 1; i < wanted; ++i) helpers.emplace_back(run);
  run();
}

}  // namespace

/// A part's result on one sample, with what only the counters need.
struct Scorer::Outcome {
  PartScore part;
  bool timeout = false;
  bool not_applicable = false;
};

std::unique_ptr<Scorer> Scorer::make(
    const RewardConfig& config,
    const std::function<std::filesystem::path(const std::string&)>& stage_result,
    Options options) {
  PRAETOR_CHECK(!config.parts.empty(), "a reward has at least one part");
  std::unique_ptr<Scorer> scorer(new Scorer());
  scorer->config_ = config;
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  scorer->threads_ = options.threads > 0 ? options.threads : std::clamp(cores, 1, 4);
  for (const PartConfig& part : config.parts) {
    PRAETOR_CHECK((part.judge != nullptr) != part.model.has_value(),
                  "part ",
                  part.name,
                  " is one of the two");
    std::unique_ptr<RewardModel> model;
    if (part.model) {
      const auto folder =
          part.model->stage.empty() ? part.model->path : stage_result(part.model->stage);
      model = RewardModel::load(folder, *part.model);
    }
    scorer->models_.push_back(std::move(model));
  }
  scorer->reset_counters();
  return scorer;
}

std::vector<Score> Scorer::score(std::span<const Sample> samples) {
  std::vector<std::vector<Outcome>> outcomes(samples.size());
  for (auto& parts : outcomes) {
    for (const PartConfig& config : config_.parts) {
      Outcome& outcome = parts.emplace_back();
      outcome.part.name = config.name;
      outcome.part.weight = config.weight;
    }
  }
  run_judges(samples, outcomes);
  run_models(samples, outcomes);
  count(outcomes);
  std::vector<Score> scores;
  scores.reserve(samples.size());
  for (size_t i = 0; i < samples.size(); ++i) scores.push_back(combine(outcomes[i], i));
  return scores;
}

void Scorer::run_judges(std::span<const Sample> samples,
                        std::vector<std::vector<Outcome>>& outcomes) const {
  const auto judged = [](const PartConfig& part) { return part.judge != nullptr; };
  if (std::ranges::none_of(config_.parts, judged)) return;
  for_each_index(samples.size(), threads_, [&](size_t i) {
    const std::string broken = unreadable(samples[i]);
    for (size_t p = 0; p < config_.parts.size(); ++p) {
      if (!config_.parts[p].judge) continue;
      Outcome& outcome = outcomes[i][p];
      if (!broken.empty()) {
        outcome.part.error = broken;
        continue;
      }
      const auto begin = Clock::now();
      // A thread's body is a border: whatever a judge throws becomes the sample's named error.
      try {
        Verdict verdict =
            config_.parts[p].judge->judge(samples[i], Deadline::after(config_.timeout));
        outcome.part.score = verdict.score;
        outcome.part.verdict = verdict.passed;
        outcome.part.reason = std::move(verdict.reason);
        outcome.not_applicable = verdict.not_applicable;
      } catch (const TimeoutError& failure) {
        outcome.part.error = failure.what();
        outcome.timeout = true;
      } catch (const std::exception& failure) {
        outcome.part.error = failure.what();
      }
      outcome.part.latency_ms = milliseconds_since(begin);
    }
  });
}

void Scorer::run_models(std::span<const Sample> samples,
                        std::vector<std::vector<Outcome>>& outcomes) const {
  for (size_t p = 0; p < models_.size(); ++p) {
    if (!models_[p]) continue;
    std::vector<Sample> readable;
    std::vector<size_t> places;
    for (size_t i = 0; i < samples.size(); ++i) {
      outcomes[i][p].part.error = unreadable(samples[i]);
      if (!outcomes[i][p].part.error.empty()) continue;
      readable.push_back(samples[i]);
      places.push_back(i);
    }
    const auto begin = Clock::now();
    const auto results = models_[p]->score(readable);
    const double each =
        readable.empty() ? 0.0 : milliseconds_since(begin) / static_cast<double>(readable.size());
    for (size_t k = 0; k < places.size(); ++k) {
      PartScore& part = outcomes[places[k]][p].part;
      part.score = results[k].score;
      part.error = results[k].error;
      part.latency_ms = each;
    }
  }
}

void Scorer::count(const std::vector<std::vector<Outcome>>& outcomes) {
  for (const auto& parts : outcomes) {
    for (size_t p = 0; p < parts.size(); ++p) {
      const Outcome& outcome = parts[p];
      PartCounters& counters = counters_[p];
      counters.latency_ms_sum += outcome.part.latency_ms;
      if (!outcome.part.error.empty()) {
        ++(outcome.timeout ? counters.timeouts : counters.errors);
        if (counters.first_error.empty()) counters.first_error = outcome.part.error;
        continue;
      }
      ++counters.scored;
      if (outcome.not_applicable) {
        ++counters.not_applicable;
        continue;
      }
      counters.score_sum += *outcome.part.score;
      if (outcome.part.verdict) ++(*outcome.part.verdict ? counters.passed : counters.failed);
    }
  }
}

Score Scorer::combine(std::vector<Outcome>& parts, size_t sample) const {
  Score out;
  double sum = 0.0;
  bool whole = true;
  for (Outcome& outcome : parts) {
    const PartScore& part = outcome.part;
    if (!part.error.empty()) {
      if (config_.on_error == OnError::kFail) {
        throw DataError("sample ", sample, ": rewards part \"", part.name, "\": ", part.error);
      }
      whole = false;
    } else {
      sum += part.weight * *part.score;
    }
    out.parts.push_back(std::move(outcome.part));
  }
  if (whole) {
    out.score = sum;
  } else if (config_.on_error == OnError::kValue) {
    out.score = config_.error_value;
  }
  return out;
}

void Scorer::reset_counters() {
  counters_.clear();
  for (const PartConfig& part : config_.parts) {
    counters_.push_back({.name = part.name, .is_judge = part.judge != nullptr});
  }
}

std::vector<std::pair<std::string, double>> Scorer::metrics() const {
  std::vector<std::pair<std::string, double>> out;
  const auto ratio = [&](const std::string& name, double top, int64_t bottom) {
    if (bottom > 0) out.emplace_back(name, top / static_cast<double>(bottom));
  };
  for (const PartCounters& c : counters_) {
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
